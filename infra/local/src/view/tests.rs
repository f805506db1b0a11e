use std::time::{Duration, SystemTime};

use super::*;

fn begin(view: &View, path: &str) -> Span {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    view.begin(Door::Gateway, at, |seen| seen.path = path.to_owned()).unwrap()
}

fn on() -> View {
    let view = View::default();
    view.switch_on();
    view
}

#[test]
fn nothing_is_kept_while_nobody_looks() {
    let view = View::default();
    assert!(view.begin(Door::Gateway, SystemTime::UNIX_EPOCH, |_| panic!("nobody looks")).is_none());
    view.notice(SystemTime::UNIX_EPOCH, "info", "x");
    let (version, seen, notices) = view.after(0);
    assert_eq!((version, seen.len(), notices.len()), (0, 0, 0));
}

#[test]
fn memory_is_bounded_whatever_comes() {
    let view = on();
    let first = begin(&view, "/0");
    for number in 1..=2 * REQUESTS {
        let span = begin(&view, &format!("/{number}"));
        for _ in 0..PARTS + 10 {
            span.open(Kind::Aws, "kms Sign").close("200");
        }
    }
    first.finish(200, |_| None);
    first.open(Kind::Aws, "late").close("200");
    let (_, seen, _) = view.after(0);
    assert_eq!(seen.len(), REQUESTS);
    let last = view.find(u64::try_from(2 * REQUESTS).unwrap()).unwrap();
    assert_eq!((last.parts.len(), last.left_out), (PARTS, 10));
    assert!(view.find(0).is_none(), "the first is forgotten, and writing to it does nothing");
    (0..200).for_each(|_| view.notice(SystemTime::UNIX_EPOCH, "info", &"line\n".repeat(10_000)));
    let (_, _, notices) = view.after(0);
    assert!(notices.len() <= 40 && notices.iter().all(|notice| notice.text.len() < 1_000));
}

#[test]
fn parts_know_what_caused_them_and_times_leave_the_gate_the_rest() {
    let view = on();
    let span = begin(&view, "/files");
    let function = span.open(Kind::Function, "upload");
    let call = function.open(Kind::Aws, "sts AssumeRole");
    call.close("200");
    function.ran(Duration::from_micros(700), true);
    function.close("answered");
    span.finish(201, |_| None);
    let seen = view.find(0).unwrap();
    assert_eq!((seen.parts[1].within, seen.parts[1].name.as_str()), (Some(0), "sts AssumeRole"));
    let times = seen.times.unwrap();
    assert_eq!((times.function, times.authorizer), (700, 0));
    assert_eq!(times.gateway, times.total.saturating_sub(700));
    assert!(seen.parts[0].cold && seen.status == Some(201));
}

#[tokio::test]
async fn news_come_when_something_changes_and_only_what_changed() {
    let view = on();
    let span = begin(&view, "/a");
    let (version, seen, _) = view.after(0);
    assert_eq!(seen.len(), 1);
    let waiting = tokio::spawn({
        let view = view.clone();
        async move { view.newer(version, Duration::from_secs(60)).await }
    });
    tokio::task::yield_now().await;
    begin(&view, "/b");
    waiting.await.unwrap();
    let (later, seen, _) = view.after(version);
    assert_eq!(seen.iter().map(|seen| seen.path.as_str()).collect::<Vec<_>>(), ["/b"]);
    span.finish(200, |_| None);
    assert_eq!(view.after(later).1.len(), 1);
}

#[test]
fn what_a_process_calls_belongs_to_its_event_and_to_no_later_one() {
    let view = on();
    let span = begin(&view, "/a");
    let work = span.worked_on_by("ASIA1");
    assert!(view.worked_on_by("ASIA1").is_some() && view.worked_on_by("ASIA2").is_none());
    drop(work);
    assert!(view.worked_on_by("ASIA1").is_none());
}

fn shown_path(target: &str, parameters: &[(&str, &str)]) -> String {
    shown::path(&target.parse().unwrap(), parameters.iter().copied())
}

#[test]
fn secrets_are_not_shown() {
    let ticket = "a".repeat(43);
    for (target, parameters, wanted) in [
        ("/files/7d9c", &[("id", "7d9c")][..], "/files/7d9c"),
        ("/tickets/short", &[("ticket", "short")], "/tickets/{ticket}"),
        (&format!("/tickets/{ticket}"), &[], "/tickets/‹43 characters›"),
        ("/app/x?access_token=abc&q&id=1", &[], "/app/x?access_token=…&…&id=…"),
        ("/b/k?X-Amz-Signature=00ff&X-Amz-Security-Token=zz", &[], "/b/k?X-Amz-Signature=…&X-Amz-Security-Token=…"),
    ] {
        assert_eq!(shown_path(target, parameters), wanted);
    }
    let mut headers = http::HeaderMap::new();
    for (name, value) in [
        ("authorization", "Bearer canary"),
        ("dpop", "canary"),
        ("cookie", "canary"),
        ("cf-access-jwt-assertion", "canary"),
        ("x-amz-security-token", "canary"),
        ("x-api-key", "canary"),
        ("user-agent", "curl"),
    ] {
        headers.append(name, value.parse().unwrap());
    }
    let shown = format!("{:?}", shown::headers(&headers));
    assert!(!shown.contains("canary") && shown.contains("curl"), "{shown}");
    let log = "{\"function\":\"token\",\"decision\":\"deny\",\"assertion\":\"canary\",\"ask\":{\"x\":\"canary\"},\"policies\":[\"p1\",\"p2\"]}\npanic canary\n";
    let said = format!("{:?}", shown::said(log));
    assert!(!said.contains("canary") && said.contains("p1 p2"), "{said}");
}

#[test]
fn nothing_that_a_terminal_obeys_is_kept() {
    let shown = shown::text("a\u{1b}[2J\u{9b}31m\r\nb\u{202e}c\u{2066}\u{feff}\u{7}");
    assert!(shown.chars().all(|sign| !sign.is_control() && !('\u{2028}'..='\u{2069}').contains(&sign)), "{shown:?}");
    assert_eq!(shown::text(&"x".repeat(10_000)).chars().count(), 301);
    let mut headers = http::HeaderMap::new();
    headers.append("user-agent", http::HeaderValue::from_bytes(b"\xc2\x9b31m\tx\xff").unwrap());
    let [(_, value)] = &shown::headers(&headers)[..] else { panic!() };
    assert!(value.chars().all(|sign| !sign.is_control()), "{value:?}");
}

#[test]
fn a_line_tells_the_decision_and_where_the_time_went() {
    let view = on();
    let span = begin(&view, "/files");
    span.change(|seen| {
        seen.method = "POST".to_owned();
        seen.id = "r-1".to_owned();
        seen.function = Some("upload".to_owned());
    });
    span.open(Kind::Function, "upload").struck("kms throttle 10%");
    let (outcome, reason, by) = ("deny".to_owned(), "insufficient_scope".to_owned(), "authorizer".to_owned());
    span.finish(403, |_| Some(Verdict { outcome, reason, policies: vec!["p1".to_owned()], by }));
    let seen = std::sync::Arc::new(view.find(0).unwrap());
    let plain = terminal::line(&seen, terminal::Style::Plain);
    for part in [
        "00:00:01.000  403  POST   /files  deny insufficient_scope [p1]  → upload",
        "(authorizer 0.0 · function",
        "fault: kms throttle 10%",
        "r-1",
    ] {
        assert!(plain.contains(part), "{plain}");
    }
    assert!(!plain.contains('\u{1b}') && terminal::line(&seen, terminal::Style::Colour).contains("\u{1b}[31m"));
    let json: serde_json::Value = serde_json::from_str(&terminal::line(&seen, terminal::Style::Json)).unwrap();
    assert_eq!(
        (&json["status"], &json["verdict"]["reason"]),
        (&serde_json::json!(403), &serde_json::json!("insufficient_scope"))
    );
}
