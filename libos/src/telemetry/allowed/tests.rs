use super::*;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::hint::black_box;
use proptest::prelude::*;

fn gate(text: fmt::Arguments<'_>) -> String {
    let mut out = String::new();
    filter(&mut out, text).expect("written");
    out
}

#[test]
fn addresses_and_registers_are_replaced() {
    let number = 0x7fff_1234_5678_u64;
    let pointer = &raw const number;
    for (text, expected) in [
        (format_args!("at {number:#x}, in"), "at 0x…, in"),
        (format_args!("at {number:#X}."), "at 0x…."),
        (format_args!("{pointer:p}"), "0x…"),
        (format_args!("{pointer:?}"), "0x…"),
        (format_args!("{:?}", Some(pointer)), "Some(0x…)"),
        (format_args!("{:#x?}", 0x20_0000..0x40_0000), "0x…..0x…"),
        (format_args!("rax {number:016x} rbx {:016x}", 7), "rax … rbx …"),
        (format_args!("{number:x}"), "…"),
        (
            format_args!("status {:#018x}: bad", 1_u64 << 63),
            "status 0x…: bad",
        ),
        (format_args!("0XFFFF8000"), "0X…"),
        (format_args!("0x12345-0x1234-0xfffff"), "0x…-0x1234-0x…"),
        (format_args!("a0xdeadbeef"), "a0x…"),
        (format_args!("0xdeadbeefg0x123456"), "0x…g0x…"),
        (format_args!("image+{number:#x}"), "image+0x…"),
        (format_args!("image +0x12345"), "image +0x…"),
        (format_args!("image+1+0x12345"), "image+1+0x…"),
        (format_args!("images+0x12345"), "images+0x…"),
        (format_args!("deadbeef00"), "…"),
        (format_args!("key={}", "ab".repeat(24)), "key=…"),
        (format_args!("{}", "0".repeat(129)), "…"),
        (format_args!("{}!", "x".repeat(1000)), "…!"),
    ] {
        assert_eq!(gate(text), expected, "{text}");
    }
}

#[test]
fn what_is_no_secret_stays() {
    for text in [
        "",
        "network 10.0.2.15/24, 4 cores, no TDX KeyIDs and no SME",
        "fault: page fault (vector 14, error 0x2) on core 0 at image+0x1234a: nothing is mapped there",
        "panic on core 3 at apps/hello/src/main.rs:12:5: the store opens",
        "pci 8086:100e, 0xcf9, bank 0x1f, code 0xffff",
        "order accepted: replace by image 8902f83a25feb031e61b2670634c134bb3f8902f83a25feb031e61b2670634c13",
        "order accepted: replace by image e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "trace 4bf92f3577b34da6a3ce929d0e0e4736, revision 8902f8300aa3b1a25feb031e61b2670634c134bb",
        "instance 1b4e28ba-2fa1-41d2-883f-0016d3cca427, mac 52:54:00:12:34:56",
        "hello 1.1.0-rc.1+3f2c1ab serves on after 123456789012 ns, 2026-11-25T02:24:52.123456Z",
        "größer als 5 €, -1, --flag, a-b",
    ] {
        let text = text.replace(
            "8902f83a25feb031e61b2670634c134bb3f8902f83a25feb031e61b2670634c13",
            &"a5".repeat(48),
        );
        assert_eq!(gate(format_args!("{text}")), text);
    }
}

#[test]
fn the_public_way_is_gated_unless_the_image_is_for_development() {
    let text = text("at 0x7fff12345678");
    assert_eq!(
        text,
        if cfg!(feature = "export-addresses") {
            "at 0x7fff12345678"
        } else {
            "at 0x…"
        }
    );
}

#[test]
fn a_writer_that_is_full_says_so() {
    struct Full;
    impl Write for Full {
        fn write_str(&mut self, _: &str) -> fmt::Result {
            Err(fmt::Error)
        }
    }
    assert!(filter(&mut Full, format_args!("a")).is_err());
    assert!(filter(&mut Full, format_args!(" ")).is_err());
}

/// Where this program's constants and static data lie; its stack and heap lie elsewhere.
fn constants() -> Range<u64> {
    unsafe extern "C" {
        static __executable_start: u8;
        static edata: u8;
    }
    &raw const __executable_start as u64..&raw const edata as u64
}

fn sieve(message: impl fmt::Display) -> String {
    OnlyConstants::new(message, constants()).to_string()
}

#[test]
fn a_panic_shows_the_words_of_the_program_only() {
    #[derive(Debug)]
    #[expect(dead_code, reason = "only printed")]
    enum Problem {
        NotFound { key: String, tries: u32 },
        Broken(Vec<u8>),
    }
    let key = String::from("pass-word-1");
    let not_found = Problem::NotFound {
        key: key.clone(),
        tries: 4711,
    };
    for (message, expected) in [
        (sieve("the store opens"), "the store opens"),
        (
            sieve(format_args!("{}: {not_found:?}", "the store opens")),
            "the store opens: NotFound { key: …, tries: … }",
        ),
        (
            sieve(format_args!("{:?}", Problem::Broken([1, 2].into()))),
            "Broken([…, …])",
        ),
        (sieve(format_args!("{key}")), "…"),
        (sieve(format_args!("{key:>20}.")), "…."),
        (
            sieve(format_args!(
                "the len is {} but the index is {}",
                black_box(3),
                black_box(5)
            )),
            "the len is … but the index is …",
        ),
        (sieve(format_args!("{:?}", Some(&key))), "Some(…)"),
        (sieve(String::new()), ""),
    ] {
        assert_eq!(message, expected);
        assert!(!message.contains("word-1") && !message.contains("4711"));
    }
    let values = sieve(format_args!("{not_found:#?}"));
    assert!(
        !values.contains("word-1") && !values.contains("4711") && values.contains("tries"),
        "{values}"
    );
}

proptest! {
    /// However a text is cut into pieces, the same is let through.
    #[test]
    fn pieces_do_not_matter(text in "([0-9a-fx+-]{0,20}|image\\+0x[0-9a-f]{1,9}|[a-z ]{0,8}|\\PC{0,4}){0,8}", cut in any::<prop::sample::Index>()) {
        let at = text.floor_char_boundary(cut.index(text.len() + 1));
        let (first, second) = text.split_at(at);
        prop_assert_eq!(gate(format_args!("{first}{second}")), gate(format_args!("{text}")));
    }

    /// No number of 17 bits or more comes through, however it is printed; and a second pass finds nothing more.
    #[test]
    fn no_address_comes_through(address in 0x10000_u64.., before in "[a-z(=:, ]{0,6}", after in "[ ,.;)g-z]{0,6}") {
        for text in [
            gate(format_args!("{before}{address:#x}{after}")),
            gate(format_args!("{before} {address:016x} {after}")),
            gate(format_args!("{before}{:p}{after}", address as *const u8)),
        ] {
            let digits = alloc::format!("{address:x}");
            prop_assert!(!text.contains(&digits), "{text}");
            prop_assert_eq!(gate(format_args!("{text}")), text.clone());
        }
    }
}
