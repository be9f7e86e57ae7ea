//! Sizes, durations and counts, as people type and read them.

use std::time::Duration;

/// Parses `4096`, `64KiB`, `1.5 GiB`, `10MB`; `K`, `M`, `G`, `T` alone are powers of 1024.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = split_unit(text)?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(format!("`{unit}` is not a unit of size; try KiB, MiB, GiB, kB, MB, GB")),
    };
    scale(number, factor, text)
}

/// Parses `1000`, `500k`, `2M`, `1e6`: counts of things, in powers of 1000.
pub fn parse_count(text: &str) -> Result<u64, String> {
    if let Some((mantissa, exponent)) = text.split_once(['e', 'E'])
        && let (Ok(mantissa), Ok(exponent)) = (mantissa.parse::<u64>(), exponent.parse::<u32>())
    {
        let product = 10_u64.checked_pow(exponent).and_then(|factor| mantissa.checked_mul(factor));
        return product.ok_or_else(|| format!("`{text}` is too large"));
    }
    let (number, unit) = split_unit(text)?;
    let factor: u64 = match unit {
        "" => 1,
        "k" | "K" => 1_000,
        "m" | "M" => 1_000_000,
        "g" | "G" => 1_000_000_000,
        _ => return Err(format!("`{unit}` is not a multiplier; try k, M or G")),
    };
    scale(number, factor, text)
}

/// Parses `10`, `10s`, `500ms`, `2m`; a bare number is seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text)?;
    let seconds = match unit {
        "" | "s" => 1.0,
        "ms" => 1e-3,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("`{unit}` is not a unit of time; try ms, s, m or h")),
    };
    let number: f64 = number.parse().map_err(|_| format!("`{text}` is not a duration"))?;
    Duration::try_from_secs_f64(number * seconds).map_err(|_| format!("`{text}` is too long"))
}

fn split_unit(text: &str) -> Result<(&str, &str), String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    if end == 0 {
        return Err(format!("`{text}` does not begin with a number"));
    }
    Ok((&text[..end], text[end..].trim_start()))
}

fn scale(number: &str, factor: u64, text: &str) -> Result<u64, String> {
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).ok_or_else(|| format!("`{text}` is too large"));
    }
    let product =
        number.parse::<f64>().map_err(|_| format!("`{text}` is not a number"))? * factor as f64;
    if product < u64::MAX as f64 {
        Ok(product as u64)
    } else {
        Err(format!("`{text}` is too large"))
    }
}

/// `1536` as `1.5 KiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `1234567` as `1,234,567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Nanoseconds with three digits that matter: `850 ns`, `12.3 us`, `1.20 ms`, `3.00 s`.
pub fn nanos(n: u64) -> String {
    let value = n as f64;
    let (value, unit) = match n {
        0..1_000 => return format!("{n} ns"),
        1_000..1_000_000 => (value / 1e3, "us"),
        1_000_000..1_000_000_000 => (value / 1e6, "ms"),
        _ => (value / 1e9, "s"),
    };
    let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.decimals$} {unit}")
}

/// Shorter than this, a rate says more about the clock than about the work.
const RATE_TIME_MIN: Duration = Duration::from_millis(1);

/// A rate per second with a short unit: `1.24 M`, `870 k`, `12`.
pub fn rate(n: u64, elapsed: Duration) -> String {
    if elapsed < RATE_TIME_MIN {
        return "-".to_owned();
    }
    let per_second = n as f64 / elapsed.as_secs_f64().max(1e-9);
    match per_second {
        r if r >= 1e6 => format!("{:.2} M", r / 1e6),
        r if r >= 1e4 => format!("{:.0} k", r / 1e3),
        r if r >= 1e3 => format!("{:.1} k", r / 1e3),
        r => format!("{r:.0}"),
    }
}

/// Bytes per second.
pub fn byte_rate(n: u64, elapsed: Duration) -> String {
    if elapsed < RATE_TIME_MIN {
        return "-".to_owned();
    }
    format!("{}/s", bytes((n as f64 / elapsed.as_secs_f64().max(1e-9)) as u64))
}

/// Seconds with two decimals.
pub fn seconds(elapsed: Duration) -> String {
    format!("{:.2} s", elapsed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("64MiB"), Ok(64 << 20));
        assert_eq!(parse_size("64 mib"), Ok(64 << 20));
        assert_eq!(parse_size("1.5K"), Ok(1536));
        assert_eq!(parse_size("10MB"), Ok(10_000_000));
        for bad in ["", "MiB", "12 parsecs", "99999999T", "1.2.3M", "-1"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn counts_and_durations_too() {
        assert_eq!(parse_count("500k"), Ok(500_000));
        assert_eq!(parse_count("1e6"), Ok(1_000_000));
        assert!(parse_count("1e60").is_err());
        assert!(parse_count("5 dozen").is_err());
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(parse_duration("1 fortnight").is_err());
    }

    #[test]
    fn numbers_are_written_as_people_read_them() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(3 << 29), "1.5 GiB");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(999), "999");
        assert_eq!(nanos(1_234), "1.23 us");
        assert_eq!(nanos(45_600_000), "45.6 ms");
        assert_eq!(rate(3_000_000, Duration::from_secs(2)), "1.50 M");
    }
}
