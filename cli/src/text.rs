//! Bytes as text and back: escaped, hexadecimal, base64.
//!
//! Escaped text is for people: UTF-8 stays readable, control characters, backslashes and broken
//! bytes become `\n`, `\t`, `\r`, `\\` or `\xNN`. It never contains a line break or a tab.

use std::fmt::Write as _;

/// A way to write bytes as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Encoding {
    /// As they are.
    Raw,
    /// Readable, with `\n`, `\t`, `\\` and `\xNN`.
    Escaped,
    /// Two hexadecimal digits per byte.
    Hex,
    /// Standard base64 with padding.
    Base64,
}

impl Encoding {
    /// `bytes` as text; `Raw` bytes pass through unchanged.
    pub fn encode(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Raw => bytes.to_vec(),
            Self::Escaped => escape(bytes).into_bytes(),
            Self::Hex => hex(bytes).into_bytes(),
            Self::Base64 => base64(bytes).into_bytes(),
        }
    }

    /// The bytes that `text` stands for, or what is wrong with it.
    pub fn decode(self, text: &[u8]) -> Result<Vec<u8>, String> {
        match self {
            Self::Raw => Ok(text.to_vec()),
            Self::Escaped => unescape(text),
            Self::Hex => unhex(text),
            Self::Base64 => unbase64(text),
        }
    }
}

/// Readable text without line breaks, see the module.
pub fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                c if c.is_control() => {
                    let mut utf8 = [0; 4];
                    c.encode_utf8(&mut utf8).bytes().for_each(|byte| escape_byte(&mut out, byte));
                }
                c => out.push(c),
            }
        }
        chunk.invalid().iter().for_each(|&byte| escape_byte(&mut out, byte));
    }
    out
}

fn escape_byte(out: &mut String, byte: u8) {
    write!(out, "\\x{byte:02x}").expect("writing to a String cannot fail");
}

fn unescape(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let Some((&kind, tail)) = rest.split_first() else {
            return Err("a backslash at the end escapes nothing".to_owned());
        };
        rest = tail;
        match kind {
            b'\\' => out.push(b'\\'),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'0' => out.push(0),
            b'x' if rest.len() >= 2 => {
                out.extend(unhex(&rest[..2])?);
                rest = &rest[2..];
            }
            other => {
                return Err(format!(
                    "`\\{}` is not an escape; use \\\\ \\n \\r \\t \\0 or \\xNN",
                    (other as char).escape_default()
                ));
            }
        }
    }
    Ok(out)
}

/// Two lower-case digits per byte.
pub fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(out, "{byte:02x}").expect("writing to a String cannot fail");
    }
    out
}

fn unhex(text: &[u8]) -> Result<Vec<u8>, String> {
    let (pairs, odd) = text.as_chunks::<2>();
    if !odd.is_empty() {
        return Err(format!("{} hexadecimal digits are not whole bytes", text.len()));
    }
    let digit = |c: u8| {
        (c as char)
            .to_digit(16)
            .ok_or_else(|| format!("`{}` is not a hexadecimal digit", (c as char).escape_default()))
    };
    pairs.iter().map(|&[hi, lo]| Ok((digit(hi)? << 4 | digit(lo)?) as u8)).collect()
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Standard alphabet, padded.
pub fn base64(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word = group.iter().fold(0_u32, |word, &byte| word << 8 | u32::from(byte))
            << (8 * (3 - group.len()));
        for i in 0..4 {
            if i <= group.len() {
                out.push(BASE64[(word >> (18 - 6 * i) & 63) as usize] as char);
            } else {
                out.push('=');
            }
        }
    }
    out
}

/// Strict: standard alphabet, padded, no spaces, no stray bits.
pub fn unbase64(text: &[u8]) -> Result<Vec<u8>, String> {
    let (groups, odd) = text.as_chunks::<4>();
    if !odd.is_empty() {
        return Err(format!("{} characters are not whole base64 groups of 4", text.len()));
    }
    let mut out = Vec::with_capacity(groups.len() * 3);
    for (i, group) in groups.iter().enumerate() {
        let padding = group.iter().rev().take_while(|&&c| c == b'=').count();
        if padding > 2 || padding > 0 && i + 1 != groups.len() {
            return Err("base64 padding in the wrong place".to_owned());
        }
        let mut word = 0_u32;
        for &c in &group[..4 - padding] {
            let value = BASE64.iter().position(|&known| known == c).ok_or_else(|| {
                format!("`{}` is not a base64 character", (c as char).escape_default())
            })?;
            word = word << 6 | value as u32;
        }
        word <<= 6 * padding;
        if word & ((1 << (8 * padding)) - 1) != 0 {
            return Err("base64 ends in bits that belong to no byte".to_owned());
        }
        let bytes = [(word >> 16) as u8, (word >> 8) as u8, word as u8];
        out.extend_from_slice(&bytes[..3 - padding]);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn every_encoding_gives_back_what_it_got() {
        let mut random = Random::new(7);
        for len in 0..200 {
            let bytes: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
            for encoding in [Encoding::Raw, Encoding::Escaped, Encoding::Hex, Encoding::Base64] {
                let text = encoding.encode(&bytes);
                assert_eq!(encoding.decode(&text).as_ref(), Ok(&bytes), "{encoding:?} seed 7");
                if encoding != Encoding::Raw {
                    assert!(!text.contains(&b'\n') && !text.contains(&b'\t'));
                }
            }
        }
    }

    #[test]
    fn readable_text_stays_readable() {
        assert_eq!(escape("gr\u{fc}n".as_bytes()), "gr\u{fc}n");
        assert_eq!(escape(b"a\tb\\\xff\0"), "a\\tb\\\\\\xff\\x00");
    }

    #[test]
    fn base64_agrees_with_the_standard() {
        for (plain, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v")] {
            assert_eq!(base64(plain.as_bytes()), text);
            assert_eq!(unbase64(text.as_bytes()), Ok(plain.as_bytes().to_vec()));
        }
        for bad in ["Zg", "Z===", "Zg==Zg==", "Zh==", "Zm9*"] {
            assert!(unbase64(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn broken_text_is_refused() {
        for bad in ["\\", "\\q", "\\x1", "\\xzz"] {
            assert!(unescape(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(unhex(b"abc").is_err());
        assert!(unhex(b"zz").is_err());
    }
}
