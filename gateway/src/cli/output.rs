//! Standard output. A reader that leaves (`| head -1`) ends the command quietly.

use std::io::Write;

use super::CliError;

/// Prints one line, at once.
///
/// # Errors
/// [`CliError::OutputClosed`] when nobody reads any more.
pub fn line(text: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

/// Prints bytes as they are.
///
/// # Errors
/// As [`line()`].
pub fn bytes(bytes: &[u8]) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}

/// Tells a person something on standard error; that nobody reads it is no reason to stop.
pub fn note(text: &str) {
    drop(writeln!(std::io::stderr().lock(), "groupcast: {}", printable(text)));
}

/// The text without control characters, which a terminal would obey.
pub fn printable(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => clean.push('\n'),
            c if c.is_control() => clean.extend(c.escape_default()),
            c => clean.push(c),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_not_given_orders() {
        assert_eq!(printable("a\u{1b}[31mb\tç\n"), "a\\u{1b}[31mb\\tç\n");
    }
}
