//! CBOR with limits: what a record's writer claims about its own size is not believed.
//!
//! minicbor's own support for lists and texts has no limits, and comes with errors that own their message, which every
//! field of every record would pay for with code.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use core::convert::Infallible;

use minicbor::decode::{Decode, Decoder, Error};
use minicbor::encode::{self, Encode, Encoder, Write};

/// A list of at most `MAX` items. Memory grows with the items that are really there, not with the claimed count.
pub fn list<'b, C, T: Decode<'b, C>, const MAX: usize>(
    decoder: &mut Decoder<'b>,
    context: &mut C,
) -> Result<Vec<T>, Error> {
    let mut items = Vec::new();
    for item in decoder.array_iter_with(context)? {
        if items.len() == MAX {
            return Err(Error::message("too many items"));
        }
        items.push(item?);
    }
    Ok(items)
}

/// A text of at most `MAX` bytes.
pub fn text<C, const MAX: usize>(decoder: &mut Decoder<'_>, _: &mut C) -> Result<String, Error> {
    let text = decoder.str()?;
    if text.len() > MAX {
        Err(Error::message("text too long"))
    } else {
        Ok(text.to_string())
    }
}

/// A byte string of at most `MAX` bytes.
pub fn bytes<C, const MAX: usize>(decoder: &mut Decoder<'_>, _: &mut C) -> Result<Vec<u8>, Error> {
    let bytes = decoder.bytes()?;
    if bytes.len() > MAX {
        Err(Error::message("bytes too long"))
    } else {
        Ok(bytes.to_vec())
    }
}

/// Writes what [`list`] reads.
pub fn write_list<C, T: Encode<C>, W: Write>(
    items: &[T],
    encoder: &mut Encoder<W>,
    context: &mut C,
) -> Result<(), encode::Error<W::Error>> {
    encoder.array(items.len() as u64)?;
    items.iter().try_for_each(|item| item.encode(encoder, context))
}

/// Writes what [`text`] reads.
pub fn write_text<C, W: Write>(
    text: &str,
    encoder: &mut Encoder<W>,
    _: &mut C,
) -> Result<(), encode::Error<W::Error>> {
    encoder.str(text)?.ok()
}

/// Where records are written to.
pub struct Memory<'a>(pub &'a mut Vec<u8>);

impl Write for Memory<'_> {
    type Error = Infallible;

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Infallible> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(encoded: &[u8]) -> Result<Vec<u8>, Error> {
        list::<(), u8, 3>(&mut Decoder::new(encoded), &mut ())
    }

    #[test]
    fn a_list_has_a_limit_and_a_claimed_count_costs_nothing() {
        assert_eq!(items(&[0x83, 1, 2, 3]).expect("three"), [1, 2, 3]);
        assert_eq!(
            items(&[0x9f, 1, 2, 3, 0xff]).expect("three, of indefinite length"),
            [1, 2, 3]
        );
        assert!(items(&[0x84, 1, 2, 3, 4]).is_err());
        assert!(items(&[0x9f, 1, 2, 3, 4, 0xff]).is_err());
        assert!(items(&[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]).is_err());
    }

    #[test]
    fn texts_and_bytes_have_limits() {
        let text_of = |encoded: &[u8]| text::<(), 2>(&mut Decoder::new(encoded), &mut ());
        assert_eq!(text_of(b"\x62ab").expect("two"), "ab");
        assert!(text_of(b"\x63abc").is_err() && text_of(b"\x62\xff\xff").is_err());
        let bytes_of = |encoded: &[u8]| bytes::<(), 2>(&mut Decoder::new(encoded), &mut ());
        assert_eq!(bytes_of(b"\x42ab").expect("two"), b"ab");
        assert!(bytes_of(b"\x43abc").is_err());
    }
}
