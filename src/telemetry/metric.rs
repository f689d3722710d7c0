//! What a metric is called, and how its samples are written down for Prometheus.
//!
//! Each module declares the metrics whose facts it knows, as constants; `admin` puts them on a page. Two formats are
//! written: OpenMetrics 1.0, and the text format before it (0.0.4) for those who ask for that, such as `promtool check
//! metrics`. They differ in what a counter's family is called, and in that only the first has units.

use std::fmt::{Display, Write};

use super::distribution::Distribution;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Gauge,
    /// Its samples are called `<name>_total`.
    Counter,
    Histogram,
    /// Its one sample is called `<name>_info` and says what it says by its labels.
    Info,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
            Kind::Histogram => "histogram",
            Kind::Info => "info",
        }
    }
}

/// One family of samples. `name` is that of OpenMetrics: without `_total` or `_info`.
#[derive(Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    /// The last part of the name, where that is a unit.
    pub unit: Option<&'static str>,
    /// What may be a label has to be bounded, and not for clients to choose.
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

impl Metric {
    const fn new(kind: Kind, name: &'static str, help: &'static str) -> Metric {
        Metric { name, kind, unit: None, labels: &[], help }
    }

    pub const fn gauge(name: &'static str, help: &'static str) -> Metric {
        Metric::new(Kind::Gauge, name, help)
    }

    pub const fn counter(name: &'static str, help: &'static str) -> Metric {
        Metric::new(Kind::Counter, name, help)
    }

    pub const fn histogram(name: &'static str, help: &'static str) -> Metric {
        Metric::new(Kind::Histogram, name, help)
    }

    pub const fn info(name: &'static str, help: &'static str) -> Metric {
        Metric::new(Kind::Info, name, help)
    }

    pub const fn unit(mut self, unit: &'static str) -> Metric {
        self.unit = Some(unit);
        self
    }

    pub const fn labels(mut self, labels: &'static [&'static str]) -> Metric {
        self.labels = labels;
        self
    }

    /// What its samples are called, as one writes it in a query.
    pub fn sample_name(&self) -> String {
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        format!("{}{suffix}", self.name)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    OpenMetrics,
    /// The one before it, 0.0.4.
    Text,
}

impl Format {
    /// The format that a client wants who sends this `Accept`: OpenMetrics, unless it asks for plain text alone.
    pub fn asked_for(accept: &str) -> Format {
        match accept.contains("text/plain") && !accept.contains("application/openmetrics-text") {
            true => Format::Text,
            false => Format::OpenMetrics,
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// What is answered to a scrape, as it grows.
pub struct Page {
    text: String,
    format: Format,
}

impl Page {
    pub fn new(format: Format) -> Page {
        Page { text: String::new(), format }
    }

    /// Begins a family; its samples follow at once.
    pub fn family(&mut self, metric: &'static Metric) -> Samples<'_> {
        // Writing to a String cannot fail.
        let (name, kind) = match self.format {
            Format::OpenMetrics => (metric.name.to_owned(), metric.kind.as_str()),
            Format::Text if metric.kind == Kind::Info => (metric.sample_name(), "gauge"),
            Format::Text => (metric.sample_name(), metric.kind.as_str()),
        };
        let _ = writeln!(self.text, "# TYPE {name} {kind}");
        if let Some(unit) = metric.unit.filter(|_| self.format == Format::OpenMetrics) {
            let _ = writeln!(self.text, "# UNIT {name} {unit}");
        }
        let _ = writeln!(self.text, "# HELP {name} {}", metric.help);
        Samples { page: &mut self.text, metric }
    }

    /// A family of one sample.
    pub fn one(&mut self, metric: &'static Metric, value: impl Display) {
        self.family(metric).add(&[], value);
    }

    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

pub struct Samples<'a> {
    page: &'a mut String,
    metric: &'static Metric,
}

impl Samples<'_> {
    /// `values` are those of the metric's labels, in their order.
    pub fn add(&mut self, values: &[&str], value: impl Display) {
        let name = self.metric.sample_name();
        self.line(&name, values, None, value);
    }

    pub fn add_distribution(&mut self, values: &[&str], distribution: &Distribution) {
        let name = self.metric.name;
        let mut so_far = 0;
        for (bound, count) in distribution.counts() {
            so_far += count;
            let bound = bound.map_or("+Inf".to_owned(), |us| seconds(us).to_string());
            self.line(&format!("{name}_bucket"), values, Some(&bound), so_far);
        }
        self.line(&format!("{name}_count"), values, None, so_far);
        self.line(&format!("{name}_sum"), values, None, seconds(distribution.sum_us()));
    }

    fn line(&mut self, name: &str, values: &[&str], bound: Option<&str>, value: impl Display) {
        debug_assert_eq!(values.len(), self.metric.labels.len(), "{name}");
        self.page.push_str(name);
        let labels = self.metric.labels.iter().copied().zip(values.iter().copied());
        for (at, (label, value)) in labels.chain(bound.map(|bound| ("le", bound))).enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.page, "{}{label}=\"{value}\"", if at == 0 { '{' } else { ',' });
        }
        if !values.is_empty() || bound.is_some() {
            self.page.push('}');
        }
        let _ = writeln!(self.page, " {value}");
    }
}

/// Microseconds as seconds.
pub fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNTED: Metric = Metric::counter("pgbaton_eggs", "Eggs.").labels(&["class", "target"]);
    const MEASURED: Metric = Metric::histogram("pgbaton_boil_seconds", "Boiled.").unit("seconds").labels(&["egg"]);
    const MADE: Metric = Metric::info("pgbaton_hen", "The hen.").labels(&["name"]);

    fn page(format: Format) -> String {
        let mut page = Page::new(format);
        page.family(&COUNTED).add(&["a \"b\"\\\n", "primary"], 3);
        let mut boiled = Distribution::new(&[250_000, 1_000_000]);
        [100_000, 250_000, 500_000, 2_000_000].into_iter().for_each(|us| boiled.add(us));
        page.family(&MEASURED).add_distribution(&["x"], &boiled);
        page.family(&MADE).add(&["Berta"], 1);
        page.finish()
    }

    #[test]
    fn families_are_written_as_openmetrics_has_them() {
        let expected = "\
# TYPE pgbaton_eggs counter
# HELP pgbaton_eggs Eggs.
pgbaton_eggs_total{class=\"a \\\"b\\\"\\\\\\n\",target=\"primary\"} 3
# TYPE pgbaton_boil_seconds histogram
# UNIT pgbaton_boil_seconds seconds
# HELP pgbaton_boil_seconds Boiled.
pgbaton_boil_seconds_bucket{egg=\"x\",le=\"0.25\"} 2
pgbaton_boil_seconds_bucket{egg=\"x\",le=\"1\"} 3
pgbaton_boil_seconds_bucket{egg=\"x\",le=\"+Inf\"} 4
pgbaton_boil_seconds_count{egg=\"x\"} 4
pgbaton_boil_seconds_sum{egg=\"x\"} 2.85
# TYPE pgbaton_hen info
# HELP pgbaton_hen The hen.
pgbaton_hen_info{name=\"Berta\"} 1
# EOF
";
        assert_eq!(page(Format::OpenMetrics), expected);
    }

    #[test]
    fn the_format_before_it_knows_neither_units_nor_an_end() {
        let text = page(Format::Text);
        assert!(text.starts_with("# TYPE pgbaton_eggs_total counter\n# HELP pgbaton_eggs_total Eggs.\n"), "{text}");
        assert!(text.contains("# TYPE pgbaton_hen_info gauge\n"), "{text}");
        assert!(!text.contains("UNIT") && !text.contains("EOF"), "{text}");
    }

    #[test]
    fn only_who_asks_for_plain_text_gets_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Format::asked_for(prometheus), Format::OpenMetrics);
        assert_eq!(Format::asked_for("*/*"), Format::OpenMetrics);
        assert_eq!(Format::asked_for("text/plain;version=0.0.4"), Format::Text);
    }
}
