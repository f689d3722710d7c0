//! The plan without pgbaton, played to the end; and whether its clients choose a host as libpq does.

mod support;

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use pgbaton::demo::{Cancel, DATABASE, Node, PASSWORD, USER};
use pgbaton::drill::compare::{self, Plain};
use pgbaton::drill::outcome::{End, MarkKind, Plan, Promise, Report, Verdict};
use pgbaton::drill::reach::{Account, Reach};
use pgbaton::drill::wire::Batch;
use pgbaton::drill::{print, report};

fn plain() -> Plain {
    Plain { operator_after: Duration::from_secs(4), seconds: Duration::from_secs(6), cancel: Cancel::default() }
}

#[test]
fn without_pgbaton_clients_wait_for_the_operator() {
    let run = compare::play("kill-primary", &plain(), &|_| ());
    assert_eq!(run.end, End::Played, "{run:#?}");
    assert_eq!((run.plan, run.durability.as_str(), run.scenario.as_str()), (Plan::MultiHost, "async", "kill-primary"));
    assert!(run.does.contains("promotes n2 4 s after the fault"), "{}", run.does);

    // Nobody writes until the operator has promoted, and somebody does after that.
    let gap = run.figures.write_gap.unwrap();
    assert!(gap >= 4000, "{gap} ms");
    assert!(run.figures.first_write.unwrap() >= 4000 && run.figures.acknowledged > 100, "{:?}", run.figures);
    assert!(run.figures.detection.is_none() && run.story.is_empty(), "there is nobody who detects");
    let fault = run.marks.iter().find(|mark| mark.kind == MarkKind::Fault).unwrap();
    let (during, after): (Vec<_>, Vec<_>) =
        run.slices.iter().filter(|slice| slice.at > fault.at + 500).partition(|slice| slice.at + 100 < fault.at + 4000);
    assert!(during.iter().all(|slice| slice.writes == 0), "{during:?}");
    assert!(after.iter().any(|slice| slice.writes > 0), "{after:?}");

    // Everybody lost the connection; and what is judged is judged by what is there.
    let verdict = |promise| run.promises.iter().find(|judged| judged.promise == promise).map(|judged| judged.verdict);
    assert_eq!(verdict(Promise::StayConnected), Some(Verdict::Fail));
    assert_eq!(verdict(Promise::HonestAnswers), Some(Verdict::Pass), "{:#?}", run.promises);
    assert!(run.figures.dropped >= 25, "{:?}", run.figures);
    let is_lost = run.figures.lost > 0;
    assert_eq!(verdict(Promise::NothingLost), Some(if is_lost { Verdict::Fail } else { Verdict::Pass }));
}

#[test]
fn what_only_pgbaton_can_do_is_skipped_with_the_reason() {
    let run = compare::play("baton-killed", &plain(), &|_| ());
    assert!(matches!(&run.end, End::Skipped { reason } if reason.contains("without pgbaton")), "{run:?}");
    assert!(compare::scenarios().any(|name| name == "freeze-primary"));
}

/// By libpq itself, the port of whoever it has chosen.
fn libpq_chooses(addresses: &[SocketAddr]) -> Option<String> {
    let list = |of: fn(&SocketAddr) -> String| addresses.iter().map(of).collect::<Vec<_>>().join(",");
    let (hosts, ports) = (list(|address| address.ip().to_string()), list(|address| address.port().to_string()));
    let text = format!(
        "host={hosts} port={ports} user={USER} dbname={DATABASE} target_session_attrs=read-write connect_timeout=2"
    );
    let mut command = Command::new(support::bin().program("psql"));
    command.env("PGPASSWORD", PASSWORD).args(["-XAtqc", "SELECT inet_server_port()", &text]);
    let output = command.output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

fn we_choose(addresses: &[SocketAddr]) -> Option<String> {
    let mut wire = Reach::Any(addresses.to_vec()).connect(&Account::default()).ok()?.ok()?;
    let answer = wire.ask(Batch::new().query("SELECT inet_server_port()")).unwrap();
    answer.first().map(str::to_owned)
}

#[test]
fn our_clients_choose_a_host_as_libpq_does() {
    let cluster = support::cluster(1);
    let address = |node: &Node| SocketAddr::new(node.host().parse().unwrap(), node.port());
    let (primary, replica) = (address(&cluster.nodes()[0]), address(&cluster.nodes()[1]));
    // Nobody listens at the discard port.
    let nobody: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let orders: [&[SocketAddr]; 6] = [
        &[primary, replica],
        &[replica, primary],
        &[nobody, replica, primary],
        &[primary, nobody],
        &[replica],
        &[nobody],
    ];
    let compared = |expected: [bool; 6]| {
        for (order, is_chosen) in orders.iter().zip(expected) {
            let wanted = is_chosen.then(|| primary.port().to_string());
            assert_eq!(libpq_chooses(order), wanted, "libpq, of {order:?}");
            assert_eq!(we_choose(order), wanted, "we, of {order:?}");
        }
    };
    compared([true, true, true, true, false, false]);
    // A primary that takes no writes is not one either.
    cluster.nodes()[0].set("default_transaction_read_only", "on").unwrap();
    support::wait_until(support::DEADLINE, "it is read-only", || {
        cluster.nodes()[0].sql("SHOW default_transaction_read_only").unwrap() == "on"
    });
    compared([false; 6]);
}

/// Some minutes: all of them, as a table and a page to look at.
#[test]
#[ignore = "takes minutes"]
fn every_scenario_that_can_be_compared_comes_to_an_end() {
    let runs: Vec<_> =
        compare::scenarios().map(|name| compare::play(name, &plain(), &|what| eprintln!("{what}"))).collect();
    let report = Report { version: "0.1.0".into(), postgres: "15".into(), began: 0, runs };
    println!("{}", print::table(&report));
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("drill-report");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("without.html"), report::html(&report)).unwrap();
    let stuck: Vec<_> = report.runs.iter().filter(|run| matches!(run.end, End::Stuck { .. })).collect();
    assert!(stuck.is_empty(), "{stuck:#?}");
}
