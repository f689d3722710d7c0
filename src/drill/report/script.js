// Shows what there was under the pointer. Everything else works without it.
"use strict";
(function () {
  function time(us) {
    if (us === "") return "–";
    var n = Number(us);
    if (n < 1000) return n + " µs";
    if (n < 1e6) return (n / 1000).toFixed(n < 1e4 ? 1 : 0) + " ms";
    return (n / 1e6).toFixed(2) + " s";
  }
  document.querySelectorAll("svg.chart").forEach(function (svg) {
    var d = svg.dataset, left = +d.left, right = +d.right, from = +d.from, to = +d.to;
    var steps = d.steps.split(";").map(function (step) { return step.split(","); });
    var cursor = svg.querySelector(".cursor"), figure = svg.closest("figure"), out = figure.querySelector(".readout");
    var fellows = figure.parentNode.querySelectorAll("svg.chart");
    function clear() {
      out.hidden = true;
      fellows.forEach(function (fellow) { fellow.querySelector(".cursor").setAttribute("visibility", "hidden"); });
    }
    svg.addEventListener("pointermove", function (event) {
      var box = svg.getBoundingClientRect();
      var x = (event.clientX - box.left) / box.width * 1000;
      if (x < left || x > right) { clear(); return; }
      var at = from + (x - left) / (right - left) * (to - from);
      // The same moment in the drawings that this one is compared with.
      fellows.forEach(function (fellow) {
        var line = fellow.querySelector(".cursor");
        line.setAttribute("transform", "translate(" + x.toFixed(1) + " 0)");
        line.setAttribute("visibility", "visible");
      });
      var found = null;
      for (var i = 0; i < steps.length && +steps[i][0] <= at; i++) found = steps[i];
      var said = (at < 0 ? "−" : "+") + (Math.abs(at) / 1000).toFixed(1) + " s: ";
      out.textContent = found && found.length === 8
        ? said + found[1] + " writes, " + found[2] + " reads per 100 ms, " + found[3] + " errors; writes " + time(found[4]) +
          " (max " + time(found[5]) + "), reads " + time(found[6]) + " (max " + time(found[7]) + ")"
        : said + "nothing";
      out.hidden = false;
    });
    svg.addEventListener("pointerleave", clear);
  });
})();
