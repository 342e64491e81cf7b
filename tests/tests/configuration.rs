//! Telemetry's settings: from the manifest, from the command line, which wins, and wrong ones, which are no reason not to serve.

use machine_tests::{
    collector::Collector,
    image::Parts,
    machine::{Setup, scratch},
    prepared::App,
};
use std::fs;

#[test]
fn the_manifest_sets_what_the_command_line_does_not() {
    let collector = Collector::start();
    let prepared = App::Hello.prepared();
    let endpoint = format!("http://10.0.2.2:{}", collector.port);
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
        ("OTEL_SERVICE_NAME", "from the manifest"),
        ("OTEL_RESOURCE_ATTRIBUTES", "secret"),
        ("OTEL_NOT_KNOWN", "secret"),
    ];
    let image = Parts::of(&prepared.old).with_environment(&environment, &prepared.release);
    let path = scratch("environment.tar");
    fs::write(&path, image.pack()).expect("written");
    let machine = Setup {
        image: Some(path),
        append: "OTEL_SERVICE_NAME=mine instar.syslog=".into(),
        cores: 2,
        ..Setup::default()
    }
    .boot();
    machine.wait_line("OTEL_RESOURCE_ATTRIBUTES is ignored");
    machine.wait_line("the manifest's OTEL_NOT_KNOWN is ignored");
    let status = machine.status();
    assert_eq!(status["telemetry"]["endpoint"], endpoint, "{status}");
    assert!(status["telemetry"]["syslog"].is_null(), "{status}");
    machine.wait_until("something is delivered", |status| {
        status["telemetry"]["delivered"].as_u64() > Some(0)
    });
    assert!(collector.has_received(b"mine") && !collector.has_received(b"from the manifest"));

    // The next image's manifest says nothing, so that nothing is sent.
    machine.stage(&machine.prepared.new);
    let status = machine.replace().status;
    assert!(status["telemetry"]["endpoint"].is_null(), "{status}");
    // The one after it sends again.
    let image = Parts::of(&prepared.new).with_environment(&environment, &prepared.release);
    machine.stage(&image.pack());
    let status = machine.replace().status;
    assert_eq!(status["telemetry"]["endpoint"], endpoint, "{status}");
    assert!(!machine.said().contains("secret"));
}

#[test]
fn wrong_settings_are_named_and_the_machine_serves() {
    let machine = Setup {
        append:
            "OTEL_EXPORTER_OTLP_ENDPOINT=http://user:hidden@10.0.2.2 OTEL_EXPORTER_OTLP_HEADERS=a=hidden \
                 OTEL_EXPORTER_OTLP_PROTOCOL=grpc OTEL_EXPORTER_OTLP_COMPRESSION=gzip \
                 OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=http://hidden instar.syslog=hidden:x"
                .into(),
        cores: 2,
        ..Setup::default()
    }
    .boot();
    for words in [
        "OTEL_EXPORTER_OTLP_ENDPOINT is ignored: user and password do not belong",
        "OTEL_EXPORTER_OTLP_PROTOCOL is ignored: http/protobuf is used",
        "OTEL_EXPORTER_OTLP_COMPRESSION is ignored: requests are sent uncompressed",
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT is ignored: all signals go to",
        "instar.syslog is ignored: the port is not a number",
    ] {
        machine.wait_line(words);
    }
    machine.assert_serves();
    let status = machine.status().to_string();
    assert!(!status.contains("hidden"), "{status}");
    assert!(!machine.said().contains("hidden"));
    // It hands the command line on, and its successor finds the same in it.
    machine.stage(&machine.prepared.new);
    assert!(!machine.replace().status.to_string().contains("hidden"));
    assert!(!machine.said().contains("hidden"));
}
