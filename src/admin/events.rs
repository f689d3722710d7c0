//! `GET /events`: the cluster, its history and its figures as they change, for whoever listens (server-sent events,
//! <https://html.spec.whatwg.org/multipage/server-sent-events.html>).
//!
//! One ticker looks at what is published and tells all listeners what is not as it was. It starts with the first listener and ends
//! with the last: nothing is computed that nobody hears. A listener that does not keep up is let go, and may come back.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};
use tokio::time::MissedTickBehavior;

use super::http::{Api, Refused};
use super::picture::Cluster;
use super::pulse::Meter;
use crate::cluster::HistoryEntry;

/// How often it is looked whether the cluster is as it was.
const LOOK: Duration = Duration::from_millis(250);

/// Figures are told, and the history is looked at, every so many looks: once a second.
const LOOKS: u32 = 4;

/// Who may listen at once. Connections are bounded too, and some have to be left for those who ask.
const LISTENERS: usize = 64;

/// Events that may wait for a listener, some ten seconds of them. What is beyond the buffers of its connection waits here.
const BACKLOG: usize = 64;

/// Entries of the history that a listener is told at first.
const PAST: usize = 50;

/// When a listener that lost its connection is to try again.
const RETRY: Duration = Duration::from_secs(1);

/// A comment is sent when there was nothing else for so long, so that both sides see that the other is there.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// What all listeners share.
pub struct Feed {
    places: Arc<Semaphore>,
    news: broadcast::Sender<News>,
    state: Mutex<Told>,
}

#[derive(Clone)]
enum News {
    Event(Event),
    /// pgbaton is stopping: nobody waits for its listeners.
    End,
}

/// What was last told.
struct Told {
    is_ticking: bool,
    cluster: String,
    figures: String,
    past: Past,
    meter: Meter,
}

impl Default for Feed {
    fn default() -> Feed {
        Feed {
            places: Arc::new(Semaphore::new(LISTENERS)),
            news: broadcast::Sender::new(BACKLOG),
            state: Mutex::new(Told {
                is_ticking: false,
                cluster: String::new(),
                figures: String::new(),
                past: Past::beginning(unix_ms()),
                meter: Meter::default(),
            }),
        }
    }
}

pub(super) async fn events(State(api): State<Arc<Api>>, headers: HeaderMap) -> Result<Response, Refused> {
    if !(api.accepts)() {
        let hint = "It is shutting down; connect to another one.";
        return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "no new listeners are accepted", hint));
    }
    let Ok(place) = api.feed.places.clone().try_acquire_owned() else {
        let message = format!("{LISTENERS} listen already");
        let hint = "Try again when one of them has left; GET /cluster and GET /history tell the same to those who ask.";
        return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_listeners", message, hint));
    };
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let (first, later) = join(&api, last);
    let all = stream::iter(first).chain(following(later, place)).map(Ok::<_, Infallible>);
    let answer = Sse::new(all).keep_alive(KeepAlive::new().interval(HEARTBEAT));
    // Something in between that keeps what it passes on would keep all of it.
    Ok(([(header::CACHE_CONTROL, "no-store"), (header::HeaderName::from_static("x-accel-buffering"), "no")], answer)
        .into_response())
}

/// What a listener is told at once, and where it hears what comes after that.
fn join(api: &Arc<Api>, last: Option<&str>) -> (Vec<Event>, broadcast::Receiver<News>) {
    let mut told = api.feed.lock();
    if !told.is_ticking {
        told.is_ticking = true;
        told.meter.reset();
        // Nobody listens yet, so nobody misses what this finds.
        told.look(api, true);
        tokio::spawn(tick(api.clone()));
    }
    let mut first = vec![event("cluster", &told.cluster).retry(RETRY)];
    first.extend(told.past.since(last).into_iter().map(|(id, entry)| event("history", &entry).id(id)));
    first.push(event("figures", &told.figures));
    // While nobody can tell anything.
    (first, api.feed.news.subscribe())
}

/// Ends when the listener is too far behind, or pgbaton stops.
fn following(news: broadcast::Receiver<News>, place: OwnedSemaphorePermit) -> impl Stream<Item = Event> {
    stream::unfold((news, place), |(mut news, place)| async {
        match news.recv().await {
            Ok(News::Event(event)) => Some((event, (news, place))),
            Ok(News::End) | Err(_) => None,
        }
    })
}

async fn tick(api: Arc<Api>) {
    let mut clock = tokio::time::interval(LOOK);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first one comes at once.
    clock.tick().await;
    for look in 1u32.. {
        clock.tick().await;
        let mut told = api.feed.lock();
        let feed = &api.feed;
        if feed.news.receiver_count() == 0 {
            told.is_ticking = false;
            return;
        }
        // Those who have left meanwhile are nobody to be told.
        if !(api.accepts)() {
            let _ = feed.news.send(News::End);
            continue;
        }
        for event in told.look(&api, look % LOOKS == 0) {
            let _ = feed.news.send(News::Event(event));
        }
    }
}

impl Feed {
    fn lock(&self) -> MutexGuard<'_, Told> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    /// Looks, and returns what is not as it was.
    fn look(&mut self, api: &Api, with_figures: bool) -> Vec<Event> {
        let mut news = Vec::new();
        let believed = (api.believed)();
        let cluster = json(&Cluster::of(&api.cluster, &api.shared, &believed));
        if cluster != self.cluster {
            news.push(event("cluster", &cluster));
            self.cluster = cluster;
        }
        if with_figures {
            let entries = (api.history)();
            let entries = self.past.take(&entries).into_iter();
            news.extend(entries.map(|(id, entry)| event("history", &entry).id(id)));
            self.figures = json(&self.meter.look(&api.shared, unix_ms(), (api.closed_for)()));
            news.push(event("figures", &self.figures));
        }
        news
    }
}

/// The newest entries of the history, each with the number it was told under. Numbers grow; an entry that takes the place of
/// another one gets a new number.
struct Past {
    /// Tells the numbers of this run of pgbaton from those of others.
    run: u64,
    next: u64,
    known: Vec<(u64, HistoryEntry)>,
}

impl Past {
    fn beginning(run: u64) -> Past {
        Past { run, next: 1, known: Vec::new() }
    }

    /// Takes in the history as it is now; returns what is new in it, with ids.
    fn take(&mut self, entries: &[HistoryEntry]) -> Vec<(String, String)> {
        let first_new = self.next;
        let recent = &entries[entries.len().saturating_sub(PAST)..];
        let mut known = Vec::with_capacity(recent.len());
        for entry in recent {
            let number = self.known.iter().find(|(_, earlier)| is_same(earlier, entry)).map(|(number, _)| *number);
            let number = number.unwrap_or_else(|| {
                self.next += 1;
                self.next - 1
            });
            known.push((number, entry.clone()));
        }
        self.known = known;
        self.told(|number| number >= first_new)
    }

    /// What was told after the event with this id; everything, if it is of another run or of none.
    fn since(&self, last: Option<&str>) -> Vec<(String, String)> {
        let number = last.and_then(|last| last.split_once('-'));
        let number = number.filter(|(run, _)| *run == self.run.to_string()).and_then(|(_, number)| number.parse().ok());
        self.told(|other| number.is_none_or(|number: u64| other > number))
    }

    fn told(&self, is_wanted: impl Fn(u64) -> bool) -> Vec<(String, String)> {
        let mut wanted: Vec<_> = self.known.iter().filter(|(number, _)| is_wanted(*number)).collect();
        wanted.sort_by_key(|(number, _)| *number);
        wanted.into_iter().map(|(number, entry)| (format!("{}-{number}", self.run), json(entry))).collect()
    }
}

/// Nothing that a listener has to hear: a watch grows all the time.
fn is_same(earlier: &HistoryEntry, entry: &HistoryEntry) -> bool {
    match (earlier, entry) {
        (HistoryEntry::Watch { from: earlier, .. }, HistoryEntry::Watch { from, .. }) => earlier == from,
        _ => earlier == entry,
    }
}

fn event(name: &str, data: &str) -> Event {
    // A line of JSON has no line ends in it.
    Event::default().event(name).data(data)
}

/// Of what is made of numbers, names and texts only, which cannot fail.
fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outage(from: u64, to: Option<u64>) -> HistoryEntry {
        HistoryEntry::Outage { from, to, reason: "why".into() }
    }

    fn ids(told: &[(String, String)]) -> Vec<&str> {
        told.iter().map(|(id, _)| &**id).collect()
    }

    #[test]
    fn an_entry_is_told_once_and_again_when_it_says_more() {
        let mut past = Past::beginning(7);
        let mut history = vec![HistoryEntry::Watch { from: 1, to: 2 }, outage(10, None)];
        assert_eq!(ids(&past.take(&history)), ["7-1", "7-2"]);
        history[0] = HistoryEntry::Watch { from: 1, to: 60 };
        assert!(past.take(&history).is_empty());
        // Whoever comes now is told how long it really is.
        assert!(past.since(None)[0].1.contains("60"));
        history[1] = outage(10, Some(50));
        assert_eq!(ids(&past.take(&history)), ["7-3"]);
        history.push(outage(70, None));
        past.take(&history);
        assert_eq!(ids(&past.since(None)), ["7-1", "7-3", "7-4"]);
        assert_eq!(ids(&past.since(Some("7-3"))), ["7-4"]);
        assert_eq!(ids(&past.since(Some("7-4"))), [""; 0]);
        for other in ["6-4", "nonsense", "7-"] {
            assert_eq!(past.since(Some(other)).len(), 3, "{other}");
        }
    }

    #[test]
    fn only_the_newest_are_told() {
        let mut past = Past::beginning(7);
        let mut history: Vec<_> = (0..200).map(|at| outage(at, Some(at + 1))).collect();
        assert_eq!(past.take(&history).len(), PAST);
        history.remove(0);
        history.push(outage(300, None));
        assert_eq!(ids(&past.take(&history)), ["7-51"]);
        assert_eq!(past.since(None).len(), PAST);
    }

    #[tokio::test]
    async fn who_falls_behind_is_let_go_and_leaves_its_place() {
        let (news, places) = (broadcast::Sender::new(BACKLOG), Arc::new(Semaphore::new(1)));
        let mut slow = Box::pin(following(news.subscribe(), places.clone().try_acquire_owned().unwrap()));
        let _ = news.send(News::Event(event("a", "1")));
        assert!(slow.next().await.is_some());
        for _ in 0..=BACKLOG {
            let _ = news.send(News::Event(event("a", "2")));
        }
        assert!(slow.next().await.is_none());
        drop(slow);
        let mut quick = Box::pin(following(news.subscribe(), places.try_acquire_owned().unwrap()));
        let _ = news.send(News::End);
        assert!(quick.next().await.is_none());
    }
}
