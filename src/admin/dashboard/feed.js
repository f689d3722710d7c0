// The connection to /events: what it tells is passed on as events of the same names; `connection` tells how it is.

const NAMES = ["cluster", "history", "figures"];

/** Figures come every second; when nothing has come for so long, something is wrong. */
const SILENT = 4000;
/** A connection that says nothing for so long is given up: one whose other side vanished would never end. */
const DEAD = 15000;
const AGAIN = 2000;

export class Feed extends EventTarget {
  #source = null;
  #opened = 0;
  #seen = null;
  #state = "connecting";

  constructor(url) {
    super();
    this.url = url;
    this.#open();
    setInterval(() => this.#look(), 1000);
  }

  #open() {
    this.#source?.close();
    this.#opened = Date.now();
    const source = new EventSource(this.url);
    this.#source = source;
    for (const name of NAMES) {
      source.addEventListener(name, (event) => {
        this.#seen = Date.now();
        this.#tell("live");
        this.dispatchEvent(new CustomEvent(name, { detail: JSON.parse(event.data) }));
      });
    }
    source.onerror = () => {
      this.#tell("lost");
      // A browser tries again by itself unless it was refused: pgbaton is stopping, or too many listen.
      if (source.readyState === EventSource.CLOSED) setTimeout(() => source === this.#source && this.#open(), AGAIN);
    };
  }

  #look() {
    const last = Math.max(this.#seen ?? 0, this.#opened);
    if (Date.now() - last > DEAD) this.#open();
    else if (Date.now() - (this.#seen ?? this.#opened) > SILENT) this.#tell("lost");
  }

  #tell(state) {
    if (state === this.#state && state === "live") return;
    this.#state = state;
    this.dispatchEvent(new CustomEvent("connection", { detail: { state, seen: this.#seen } }));
  }
}
