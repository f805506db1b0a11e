use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use unicode_normalization::UnicodeNormalization;

/// `attr-char` of RFC 8187 without the two characters that names may not hold anyway: everything else is percent-encoded.
const EXTENDED_VALUE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// The name a file is offered under when it is saved: cleaned, 1 to 200 bytes of UTF-8, never part of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileName(String);

impl FileName {
    /// The longest name, in bytes.
    pub const LIMIT: usize = 200;
    const LONGEST_EXTENSION: usize = 32;

    /// Makes a safe name out of any text: the last path segment, without control, invisible and direction-changing
    /// characters, with `_` for what some file system would interpret, and `download` when nothing is left.
    pub fn clean(text: &str) -> FileName {
        let composed: String = text.nfc().collect();
        let segment = composed.rsplit(['/', '\\']).next().unwrap_or_default();
        let visible: String =
            segment.chars().filter(|c| !dropped(*c)).map(|c| if reserved(c) { '_' } else { c }).nfc().collect();
        let trimmed = visible.trim_start_matches('.').trim_end_matches(['.', ' ']);
        let name = shortened(trimmed);
        FileName(if name.is_empty() { "download".to_owned() } else { name })
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The header value that makes a client save the file instead of showing it (RFC 6266, RFC 8187): always
    /// `attachment`, since `nosniff` cannot be sent with an object.
    pub fn disposition(&self) -> String {
        let plain: String = self.0.chars().map(|c| if c.is_ascii() { c } else { '_' }).collect();
        format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{}", utf8_percent_encode(&self.0, EXTENDED_VALUE))
    }
}

/// Controls, and what Unicode draws as nothing, as a line's end or as another direction: a name is what it looks like.
fn dropped(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{00AD}' | '\u{034F}' | '\u{061C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}' | '\u{180B}'..='\u{180F}'
                | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{2800}' | '\u{3164}'
                | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF0}'..='\u{FFFB}' | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D173}'..='\u{1D17A}'
                | '\u{E0000}'..='\u{E0FFF}'
        )
}

/// What some file system interprets, and the lookalikes that some file system makes one of those of.
fn reserved(c: char) -> bool {
    matches!(c, '"' | '\\' | '/' | ':' | '*' | '?' | '<' | '>' | '|' | ';' | '%')
        || matches!(c, '\u{2044}' | '\u{2215}' | '\u{2216}' | '\u{29F5}' | '\u{29F8}' | '\u{29F9}' | '\u{FE68}')
        || matches!(
            c,
            '\u{FF02}' | '\u{FF05}' | '\u{FF0A}' | '\u{FF0F}' | '\u{FF1A}'
                ..='\u{FF1C}' | '\u{FF1E}' | '\u{FF1F}' | '\u{FF3C}' | '\u{FF5C}'
        )
}

fn shortened(name: &str) -> String {
    if name.len() <= FileName::LIMIT {
        return name.to_owned();
    }
    let (stem, extension) = match name.rfind('.').map(|dot| name.split_at(dot)) {
        Some((stem, extension)) if extension.len() <= FileName::LONGEST_EXTENSION => (stem, extension),
        _ => (name, ""),
    };
    let end = stem.floor_char_boundary(FileName::LIMIT - extension.len());
    let stem = stem.get(..end).unwrap_or_default();
    if extension.is_empty() { stem.trim_end_matches(['.', ' ']).to_owned() } else { format!("{stem}{extension}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_cleaned_as_specified() {
        let long = format!("{}.tar.gz", "ü".repeat(150));
        let cases = [
            ("report.pdf", "report.pdf"),
            ("Überblick \"Q3\".pdf", "Überblick _Q3_.pdf"),
            ("U\u{308}berblick.pdf", "Überblick.pdf"),
            ("../../etc/passwd", "passwd"),
            ("C:\\Users\\me\\cv.docx", "cv.docx"),
            ("a\r\nSet-Cookie: x", "aSet-Cookie_ x"),
            ("evil\u{202E}fdp.exe", "evilfdp.exe"),
            ("e\u{200B}\u{301}", "é"),
            (".bashrc", "bashrc"),
            ("...", "download"),
            ("name. . ", "name"),
            ("", "download"),
            ("/", "download"),
            ("\u{0}\u{7f}\u{85}", "download"),
            ("100%;*?.txt", "100____.txt"),
        ];
        for (given, want) in cases {
            assert_eq!(FileName::clean(given).as_str(), want, "{given:?}");
        }
        let cut = FileName::clean(&long);
        assert!(cut.as_str().len() <= FileName::LIMIT && cut.as_str().ends_with("ü.gz"), "{cut:?}");
        // A short extension is kept whole; a long one is a part of the name.
        let (limit, longest) = (FileName::LIMIT, FileName::LONGEST_EXTENSION);
        let (kept, cut) = (".".to_owned() + &"e".repeat(longest - 1), ".".to_owned() + &"e".repeat(longest));
        for (given, want) in [
            (format!("{}{kept}", "x".repeat(300)), format!("{}{kept}", "x".repeat(limit - longest))),
            (format!("{}{cut}", "x".repeat(300)), "x".repeat(limit)),
            (format!("a.{}", "b".repeat(300)), format!("a.{}", "b".repeat(limit - 2))),
            ("x".repeat(limit), "x".repeat(limit)),
        ] {
            assert_eq!(FileName::clean(&given).as_str(), want, "{given}");
        }
    }

    #[test]
    fn no_trick_of_unicode_makes_a_name_look_like_another() {
        for (given, want) in [
            ("invoice\u{2066}cod.exe\u{2069}", "invoicecod.exe"),
            ("invoice\u{061C}.pdf\u{200F}.exe", "invoice.pdf.exe"),
            ("report.pdf\u{2028}.exe", "report.pdf.exe"),
            ("report.pdf\u{3164}\u{3164}\u{3164}.exe", "report.pdf.exe"),
            ("report.pdf\u{2800}\u{115F}\u{FFA0}.exe", "report.pdf.exe"),
            ("re\u{00AD}port\u{2060}\u{034F}.pdf", "report.pdf"),
            ("a\u{E0041}\u{E0042}\u{E01EF}.txt", "a.txt"),
            ("..\u{FF0F}..\u{2215}etc\u{2044}passwd", "_.._etc_passwd"),
            ("C\u{FF1A}\u{FF3C}x.txt", "C__x.txt"),
            ("x\u{FF02}; filename=evil.exe", "x__ filename=evil.exe"),
            ("\u{200B}.htaccess", "htaccess"),
            ("\u{FEFF}\u{202E}", "download"),
        ] {
            assert_eq!(FileName::clean(given).as_str(), want, "{given:?}");
        }
    }

    #[test]
    fn the_disposition_has_its_known_answers() {
        let cases = [
            (
                "Überblick \"Q3\".pdf",
                "attachment; filename=\"_berblick _Q3_.pdf\"; filename*=UTF-8''%C3%9Cberblick%20_Q3_.pdf",
            ),
            ("report.pdf", "attachment; filename=\"report.pdf\"; filename*=UTF-8''report.pdf"),
            (
                "a!#$&+-.^_`|~'()@,=.txt",
                "attachment; filename=\"a!#$&+-.^_`_~'()@,=.txt\"; filename*=UTF-8''a!#$&+-.^_`_~%27%28%29%40%2C%3D.txt",
            ),
        ];
        for (name, want) in cases {
            assert_eq!(FileName::clean(name).disposition(), want);
        }
    }

    proptest! {
        #[test]
        fn a_cleaned_name_keeps_every_promise(text in any::<String>()) {
            let name = FileName::clean(&text);
            let kept = name.as_str();
            prop_assert!((1..=FileName::LIMIT).contains(&kept.len()));
            prop_assert!(!kept.starts_with('.') && !kept.ends_with(['.', ' ']));
            prop_assert!(!kept.chars().any(|c| dropped(c) || reserved(c)));
            prop_assert_eq!(&FileName::clean(kept), &name);
        }

        #[test]
        fn a_disposition_is_one_header_value_that_nothing_can_break_out_of(text in any::<String>()) {
            let value = FileName::clean(&text).disposition();
            prop_assert!(value.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            prop_assert!(value.starts_with("attachment; filename=\""));
            prop_assert_eq!(value.matches('"').count(), 2);
            prop_assert!(!value.contains('\\'));
        }
    }
}
