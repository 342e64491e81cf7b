//! The collector's page in a browser: an upgrade and a rollback happen while it is open, and it shows both.

use machine_tests::{
    browser::{Browser, keys},
    image::Parts,
    machine::{Machine, Setup},
    prepared::App,
};
use serde_json::json;
use xtask::collect::Collector;

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

/// How many bars of cores' flushes lie within the span of this name.
fn flushes(browser: &Browser) -> u64 {
    let bars = "return document.querySelectorAll('#spans tr[data-span=core] .bar.core').length";
    browser.run(bars).as_u64().unwrap_or_default()
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
    assert_eq!(flushes(&browser) % u64::from(CORES), 0);
    assert!(flushes(&browser) >= u64::from(CORES));
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
    // Early, and in the stop.
    assert_eq!(flushes(&browser), u64::from(2 * CORES));
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
    browser.wait_for(
        "log records",
        "return document.querySelectorAll('#logs li').length > 3",
    );
    browser.picture("machine-dark");

    colours_follow_the_scheme(&browser);
    fits_a_narrow_window(&browser);
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

fn colours_follow_the_scheme(browser: &Browser) {
    let ground = |scheme: &str| {
        browser.prefer_scheme(scheme);
        browser.run("return getComputedStyle(document.body).backgroundColor")
    };
    assert_ne!(ground("light"), ground("dark"));
    browser.prefer_scheme("light");
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
