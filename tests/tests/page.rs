//! The collector's page in a browser: an upgrade and a rollback happen while it is open, and it shows both.

use machine_tests::{
    browser::{Browser, keys},
    image::Parts,
    machine::{Machine, Setup},
    prepared::App,
};
use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{AnyValue, KeyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status},
};
use prost::Message;
use serde_json::json;
use xtask::{
    collect::Collector,
    http::{self, Limits},
};

const CORES: u32 = 4;

/// The text of the element with this id, or nothing.
fn text(browser: &Browser, id: &str) -> String {
    let value = browser.run(&format!("return document.getElementById('{id}').innerText"));
    value.as_str().unwrap_or_default().to_owned()
}

/// Waits until the list shows an upgrade to this version with this outcome.
fn wait_for_upgrade(browser: &Browser, to: &str, outcome: &str) {
    let script = format!(
        "return [...document.querySelectorAll('#upgrade-list a')].some(
             (link) => link.innerText.includes('→ {to}') && link.innerText.includes('{outcome}'))"
    );
    browser.wait_for(&format!("the upgrade to {to}, {outcome},"), &script);
}

/// Presses a key until the script returns true, and says how often.
fn press_until(browser: &Browser, key: &str, script: &str) -> usize {
    for presses in 0..40 {
        if browser.run(script) == true {
            return presses;
        }
        browser.press(&[key]);
    }
    panic!("not reached with the keyboard: {script}");
}

/// Shows that each core's flushes have their bars: early, and in the stop.
fn assert_flushes(browser: &Browser) {
    browser.run("document.querySelector('#zoom input[value=whole]').click()");
    let bars = "return document.querySelectorAll('#spans tr[data-span=core] .bar.core').length";
    browser.wait_for("the bars of all flushes", &format!("{bars} === {}", 2 * CORES));
}

fn upgrade(machine: &Machine) {
    machine.stage(&machine.prepared.new);
    machine.replace();
    // The timeline ends with the first answer that a client gets.
    machine.assert_answers();
}

fn roll_back(machine: &Machine) {
    let elf = &machine.prepared.parts.elf;
    machine.stage(&Parts::signed(elf, "1.2.0-panic.before-network", &machine.prepared.release).pack());
    let answer = machine.order(&machine.facts().replace(&machine.prepared.operator));
    assert_eq!(answer.status, 202, "{}", answer.body);
    machine.wait_for_predecessor();
}

#[test]
fn an_open_page_shows_an_upgrade_and_a_rollback() {
    let collector = Collector::start("127.0.0.1:0").expect("a collector");
    let address = format!("http://{}/", collector.address());
    let browser = Browser::start();
    browser.resize(1600, 1000);
    browser.prefer_scheme("light");
    browser.open(&address);
    browser.wait_for(
        "the stream",
        "return document.getElementById('connection').dataset.state === 'live'",
    );
    browser.wait_for(
        "the empty page",
        "return !document.getElementById('empty').hidden",
    );
    let port = collector.address().port();
    assert!(text(&browser, "empty").contains(&format!("OTEL_EXPORTER_OTLP_ENDPOINT=http://10.0.2.2:{port}")));
    browser.picture("empty");

    let machine = Setup {
        app: App::Trial,
        cores: CORES,
        append: format!("instar.flush=always OTEL_EXPORTER_OTLP_ENDPOINT=http://10.0.2.2:{port}"),
        ..Setup::default()
    }
    .boot();
    browser.wait_for(
        "the machine",
        "return document.querySelectorAll('#machine-list button').length === 1",
    );
    upgrade(&machine);
    wait_for_upgrade(&browser, "1.1.0", "committed");
    roll_back(&machine);
    wait_for_upgrade(&browser, "1.2.0-panic.before-network", "rolled back");
    browser.picture("overview-light");
    let points = "return document.querySelectorAll('#chart-box .mark.committed, #chart-box .mark.rolled-back').length === 2";
    browser.wait_for("two points of two shapes", points);

    // With the keyboard alone: to the list, into the newest, and from there to the one before.
    press_until(
        &browser,
        keys::TAB,
        "return document.activeElement.matches('#upgrade-list a')",
    );
    browser.press(&[keys::ENTER]);
    browser.wait_for(
        "the rollback",
        "return document.getElementById('upgrade-title').innerText.includes('1.2.0')",
    );
    assert!(text(&browser, "upgrade-outcome").contains("rolled back"));
    let reason = text(&browser, "upgrade-reason");
    assert!(reason.starts_with("Why: panic"), "{reason}");
    assert_flushes(&browser);
    assert_eq!(
        browser.run("return document.querySelectorAll('#spans tr.successor .bar').length > 0"),
        true
    );
    browser.picture("rollback-light");
    browser.press(&[keys::ESCAPE]);
    browser.wait_for(
        "the list again",
        "return document.activeElement.matches('#upgrade-list a')",
    );
    assert_eq!(
        browser.run("return document.getElementById('upgrade').hidden"),
        true
    );
    browser.press(&[keys::DOWN, keys::ENTER]);
    browser.wait_for(
        "the upgrade",
        "return document.getElementById('upgrade-title').innerText.includes('1.0.0 → 1.1.0')",
    );
    assert!(text(&browser, "upgrade-outcome").contains("committed"));
    assert_flushes(&browser);
    for kind in ["predecessor", "successor"] {
        let bars = format!("return document.querySelectorAll('#spans tr.{kind} .bar').length > 0");
        assert_eq!(browser.run(&bars), true, "{kind}");
    }
    browser.picture("upgrade-light");
    browser.prefer_scheme("dark");
    browser.picture("upgrade-dark");
    browser.press(&[keys::ESCAPE]);

    // The machine itself: who ran, and what they were measured as.
    browser.run("document.querySelector('#machine-list button').focus()");
    browser.press(&[keys::ENTER]);
    browser.wait_for(
        "the machine's details",
        "return document.querySelectorAll('#generations tr').length >= 2",
    );
    let chain = machine.status()["measurement"]["chain"]
        .as_str()
        .expect("a chain")
        .to_owned();
    assert!(text(&browser, "generations").contains(&chain), "{chain}");
    assert!(text(&browser, "numbers").contains("Uptime"));
    assert!(text(&browser, "generations").contains("3 (gave the machine back)"));
    assert!(text(&browser, "generations").contains("2 (runs)"));
    browser.wait_for(
        "log records",
        "return document.querySelectorAll('#logs li').length > 3",
    );
    browser.picture("machine-dark");

    fits_a_narrow_window(&browser);
    colours_follow_the_scheme(&browser);
    every_control_is_reached(&browser);
    let elsewhere = format!(
        "return performance.getEntriesByType('resource').map((entry) => entry.name).filter((name) => !name.startsWith('{address}'))"
    );
    assert_eq!(browser.run(&elsewhere), json!([]));
    assert_eq!(browser.console(), Vec::<String>::new());

    // The collector goes and comes back at the same place: the page says so, and shows what there is then.
    drop(collector);
    browser.wait_for(
        "the words",
        "return document.getElementById('connection').innerText.includes('disconnected')",
    );
    let again = Collector::start(&address["http://".len()..address.len() - 1]).expect("the port is free");
    browser.wait_for(
        "the stream",
        "return document.getElementById('connection').dataset.state === 'live'",
    );
    drop(again);
}

/// Text whose contrast against its ground is below 4.5 (WCAG 2.2, 1.4.3, level AA).
const PALE_TEXT: &str = r#"
    const parts = (color) => color.match(/[\d.]+/g).map(Number);
    const light = (color) => {
        const [r, g, b] = parts(color).map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const color = getComputedStyle(at).backgroundColor;
            if ((parts(color)[3] ?? 1) === 1) return color;
        }
        return "rgb(255, 255, 255)";
    };
    const pale = [];
    for (const element of document.body.querySelectorAll("*")) {
        const words = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
        if (!words || !element.checkVisibility() || element.closest("script, noscript, .unseen")) continue;
        const style = getComputedStyle(element);
        const [a, b] = [light(element instanceof SVGElement ? style.fill : style.color), light(ground(element))];
        const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (contrast < 4.5) pale.push(`${element.textContent.trim().slice(0, 30)}: ${contrast.toFixed(2)}`);
    }
    return pale;"#;

fn colours_follow_the_scheme(browser: &Browser) {
    let ground = |scheme: &str| {
        browser.prefer_scheme(scheme);
        assert_eq!(browser.run(PALE_TEXT), json!([]), "{scheme}");
        browser.run("return getComputedStyle(document.body).backgroundColor")
    };
    assert_ne!(ground("dark"), ground("light"));
}

/// With everything open, Tab comes by each control once round, and each shows that it has the focus.
fn every_control_is_reached(browser: &Browser) {
    let watch = r#"
        document.activeElement.blur();
        window.reached = new Set();
        window.unseen = [];
        document.addEventListener("focusin", ({ target }) => {
            reached.add(target);
            const ring = target.matches("input") ? target.nextElementSibling : (target.querySelector(".ring") ?? target);
            const style = getComputedStyle(ring);
            if (style.outlineStyle === "none" && style.stroke === "none") unseen.push(target.outerHTML.slice(0, 60));
        });
        const controls = "a[href]:not([tabindex='-1']), button, summary, input:checked, [tabindex='0']";
        window.controls = [...document.querySelectorAll(controls)].filter((control) => control.checkVisibility());
        return controls.length;"#;
    let count = usize::try_from(browser.run(watch).as_u64().expect("a number")).expect("small");
    assert!(count >= 8, "{count}");
    browser.press(&vec![keys::TAB; count + 4]);
    let missed = "return controls.filter((control) => !reached.has(control)).map((control) => control.outerHTML.slice(0, 60))";
    assert_eq!(browser.run(missed), json!([]));
    assert_eq!(browser.run("return unseen"), json!([]));
}

fn fits_a_narrow_window(browser: &Browser) {
    browser.resize(360, 740);
    browser.run("document.querySelector('#upgrade-list li:last-child a').click()");
    browser.wait_for("the upgrade", "return !document.getElementById('upgrade').hidden");
    let wide = "return document.documentElement.scrollWidth > document.documentElement.clientWidth";
    assert_eq!(browser.run(wide), false);
    browser.picture("upgrade-narrow");
    browser.resize(1600, 1000);
}

/// A report by a sender that would like to be markup.
fn hostile_report(words: &str) -> (Vec<u8>, Vec<u8>) {
    let text = |value: &str| {
        Some(AnyValue {
            value: Some(Value::StringValue(value.into())),
        })
    };
    let pair = |key: &str, value| KeyValue {
        key: key.into(),
        value,
        ..KeyValue::default()
    };
    let generation = Some(AnyValue {
        value: Some(Value::IntValue(1)),
    });
    let mut attributes = vec![pair("instar.generation", generation)];
    for key in [
        "service.name",
        "service.version",
        "service.instance.id",
        "host.id",
        "instar.measurement",
    ] {
        attributes.push(pair(key, text(words)));
    }
    let resource = Some(Resource {
        attributes,
        ..Resource::default()
    });
    let record = LogRecord {
        severity_text: words.into(),
        body: text(words),
        ..LogRecord::default()
    };
    let outcome = [
        "instar.replacement.from",
        "instar.replacement.outcome",
        "error.type",
    ];
    let span = Span {
        trace_id: vec![1; 16],
        span_id: vec![1; 8],
        name: words.into(),
        start_time_unix_nano: 1,
        end_time_unix_nano: 2_000_000,
        attributes: outcome.map(|key| pair(key, text(words))).to_vec(),
        status: Some(Status {
            code: 2,
            message: words.into(),
        }),
        ..Span::default()
    };
    let logs = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: resource.clone(),
            scope_logs: vec![ScopeLogs {
                log_records: vec![record],
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    };
    let traces = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource,
            scope_spans: vec![ScopeSpans {
                spans: vec![span],
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    };
    (logs.encode_to_vec(), traces.encode_to_vec())
}

#[test]
fn what_a_sender_says_is_never_markup() {
    let collector = Collector::start("127.0.0.1:0").expect("a collector");
    let browser = Browser::start();
    browser.resize(800, 600);
    browser.open(&format!("http://{}/", collector.address()));
    // Short enough to be cut nowhere.
    let words = "<img src=x onerror=\"harmed=1\"><b>bold</b>&amp;";
    let (logs, traces) = hostile_report(words);
    for (path, body) in [("/v1/logs", logs), ("/v1/traces", traces)] {
        let kind = [("Content-Type", "application/x-protobuf")];
        let answer = http::send(
            collector.address(),
            "POST",
            path,
            &kind,
            &body,
            Limits::patient(),
            |_| (),
        );
        assert_eq!(answer.expect("an answer").status, 200);
    }
    browser.wait_for(
        "the upgrade",
        "return document.querySelectorAll('#upgrade-list a').length === 1",
    );
    browser.run("document.querySelector('#machine-list button').click()");
    browser.wait_for(
        "the log",
        "return document.querySelectorAll('#logs li').length === 1",
    );
    browser.run("document.querySelector('#upgrade-list a').click()");
    browser.wait_for(
        "the waterfall",
        "return document.querySelectorAll('#spans tr').length === 1",
    );
    for place in [
        "machine-list",
        "generations",
        "logs",
        "upgrade-list",
        "upgrade-title",
        "upgrade-reason",
        "spans",
    ] {
        assert!(
            text(&browser, place).contains("<b>bold</b>&amp;"),
            "{place}: {}",
            text(&browser, place)
        );
    }
    let made = "return document.querySelectorAll('img, b, body script').length + (window.harmed ?? 0)";
    assert_eq!(browser.run(made), 0);
    let wide = "return document.documentElement.scrollWidth > document.documentElement.clientWidth";
    assert_eq!(browser.run(wide), false, "long words do not widen the page");
    assert_eq!(browser.console(), Vec::<String>::new());
}
