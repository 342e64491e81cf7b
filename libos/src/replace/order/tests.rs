//! Good orders, and what is wrong with others.

use super::*;
use alloc::format;
use proptest::prelude::*;

const HOST: &str = "52:54:00:12:34:56";
const IMAGE: [u8; 32] = [0xab; 32];

fn nonce() -> Nonce {
    Nonce::new([0x5a; 16])
}

fn text(nonce: &Nonce) -> String {
    format!(
        "format = 1\naction = \"replace\"\nhost = \"{HOST}\"\ngeneration = 1\nnonce = \"{}\"\nimage = \"{}\"\n",
        nonce.hex(),
        hex(&IMAGE)
    )
}

fn order() -> Order {
    Order::parse(text(&nonce()).as_bytes()).expect("a good order")
}

fn expected(nonce: &Nonce) -> Expected<'_> {
    Expected {
        host_id: HOST,
        generation: 1,
        nonce,
        staged: Some(&IMAGE),
    }
}

fn code(order: &Order, expected: &Expected) -> &'static str {
    order.check(expected).expect_err("refused").code
}

#[test]
fn a_good_order_fits_once() {
    let (order, mut nonce) = (order(), nonce());
    assert_eq!(order.check(&expected(&nonce)), Ok(()));
    nonce.spend();
    assert_eq!(code(&order, &expected(&nonce)), "wrong-nonce");
    nonce = Nonce::new([0x5b; 16]);
    assert_eq!(code(&order, &expected(&nonce)), "wrong-nonce");
}

#[test]
fn each_binding_is_checked() {
    let (order, nonce) = (order(), nonce());
    let good = expected(&nonce);
    assert_eq!(
        code(
            &order,
            &Expected {
                host_id: "other",
                ..good
            }
        ),
        "wrong-host"
    );
    assert_eq!(
        code(
            &order,
            &Expected {
                generation: 2,
                ..good
            }
        ),
        "wrong-generation"
    );
    assert_eq!(code(&order, &Expected { staged: None, ..good }), "nothing-staged");
    assert_eq!(
        code(
            &order,
            &Expected {
                staged: Some(&[0; 32]),
                ..good
            }
        ),
        "wrong-image"
    );
}

#[test]
fn bad_texts_are_bad_orders() {
    let good = text(&nonce());
    let nonce = nonce().hex();
    for (from, to) in [
        ("format = 1", "format = 2"),
        ("format = 1", ""),
        ("\"replace\"", "\"explode\""),
        ("\"replace\"", "\"Commit\""),
        ("generation = 1", "generation = -1"),
        ("generation = 1", "generation = 4294967296"),
        ("generation = 1", "generation = \"1\""),
        (nonce.as_str(), "5A"),
        ("image = \"", "image = \"ab"),
        ("host", "hosts"),
        ("action", "action = 1\naction"),
    ] {
        let text = good.replacen(from, to, 1);
        assert_ne!(text, good);
        assert_eq!(
            Order::parse(text.as_bytes()).expect_err("refused").code,
            "bad-order",
            "{text}"
        );
    }
    let long = good.clone() + &" ".repeat(MAX_ORDER);
    assert_eq!(
        Order::parse(long.as_bytes()).expect_err("refused").code,
        "bad-order"
    );
    assert!(Order::parse(b"\xff\xfe").is_err());
}

fn with(line: &str) -> Result<Action, Refusal> {
    let text = text(&nonce()) + line + "\n";
    Order::parse(text.as_bytes()).map(|order| order.action)
}

fn trial_of(line: &str) -> Trial {
    match with(line).expect(line) {
        Action::Replace { trial, .. } => trial,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_trial_is_as_the_order_says() {
    let default = Trial {
        deadline_ns: 30_000_000_000,
        commit: CommitBy::Auto,
    };
    assert_eq!(trial_of(""), default);
    assert_eq!(trial_of("commit = \"auto\""), default);
    assert_eq!(trial_of("commit = \"order\"").commit, CommitBy::Order);
    for (text, ms) in [("1000", 1000), ("600000", 600_000)] {
        let line = format!("probation_ms = {text}");
        assert_eq!(trial_of(&line).deadline_ns, ms * 1_000_000);
    }
    for wrong in [
        "probation_ms = 999",
        "probation_ms = 600001",
        "probation_ms = 0",
        "probation_ms = -1000",
        "probation_ms = \"30000\"",
        "probation_ms = 1000.0",
        "probation_ms = 1000\nprobation_ms = 2000",
        "commit = \"never\"",
        "commit = true",
        "commit = \"\"",
    ] {
        assert_eq!(with(wrong).expect_err(wrong).code, "bad-order", "{wrong}");
    }
}

#[test]
fn the_end_of_a_trial_needs_no_image_but_the_rest() {
    let (nonce, good) = (nonce(), text(&nonce()));
    let nothing_staged = Expected {
        staged: None,
        ..expected(&nonce)
    };
    for (name, action) in [("commit", Action::Commit), ("rollback", Action::Rollback)] {
        let text = good.replace("\"replace\"", &format!("\"{name}\""));
        let text = text.split("image").next().expect("the lines before");
        let order = Order::parse(text.as_bytes()).expect(name);
        assert_eq!((order.action, order.action.name()), (action, name));
        assert_eq!(order.check(&nothing_staged), Ok(()));
        assert_eq!(
            code(
                &order,
                &Expected {
                    generation: 2,
                    ..nothing_staged
                }
            ),
            "wrong-generation"
        );
        let spent = Nonce::new([0; 16]);
        assert_eq!(code(&order, &expected(&spent)), "wrong-nonce");
        assert_eq!(
            code(
                &order,
                &Expected {
                    host_id: "other",
                    ..nothing_staged
                }
            ),
            "wrong-host"
        );
        for missing in ["format", "host", "generation", "nonce"] {
            let without: String = text
                .lines()
                .filter(|line| !line.starts_with(missing))
                .map(|line| format!("{line}\n"))
                .collect();
            assert!(
                Order::parse(without.as_bytes()).is_err(),
                "{name} without {missing}"
            );
        }
    }
    let without = good.split("image").next().expect("the lines before");
    assert!(
        Order::parse(without.as_bytes()).is_err(),
        "a replacement needs it"
    );
}

#[test]
fn unknown_keys_are_ignored() {
    let more = text(&nonce()) + "reason = \"kernel fix\"\n[more]\nx = [1, 2]\n";
    assert_eq!(Order::parse(more.as_bytes()), Ok(order()));
}

#[test]
fn deep_nesting_is_an_error() {
    let deep = format!("{}x = {}", text(&nonce()), "[".repeat(3000));
    assert!(Order::parse(deep.as_bytes()).is_err());
}

proptest! {
    #[test]
    fn any_bytes_get_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Order::parse(&bytes);
    }

    #[test]
    fn any_change_is_noticed(at in 0_usize..16, bit in 0_u32..8) {
        let mut given = [0x5a; 16];
        prop_assert!(nonce().matches(&given));
        given[at] ^= 1 << bit;
        prop_assert!(!nonce().matches(&given));
    }
}
