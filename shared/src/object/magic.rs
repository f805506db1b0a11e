use super::ContentType;

impl ContentType {
    /// How many bytes from the start of a file are looked at.
    pub const LOOKED_AT: u32 = 1024;

    /// Whether the first bytes of a file say anything about this type.
    pub fn is_told_by_its_start(self) -> bool {
        !matches!(rule(self.declared()), Rule::Anything)
    }

    /// Whether a file that starts so can be of this type. Only what is decided is refused: each format that begins with bytes of
    /// its own, and text, which holds no NUL. That it is a good file of its type is not said.
    pub fn fits(self, start: &[u8]) -> bool {
        match rule(self.declared()) {
            Rule::Anything => true,
            Rule::Starts(beginnings) => beginnings.iter().any(|beginning| start.starts_with(beginning)),
            // Readers of the format allow for something before it (ISO 32000-1, annex H.3.4.1).
            Rule::Within(mark) => start.windows(mark.len()).any(|window| window == mark),
            Rule::At(place, mark) => start.get(place..).is_some_and(|rest| rest.starts_with(mark)),
            Rule::RiffOf(form) => {
                start.starts_with(b"RIFF") && start.get(8..).is_some_and(|rest| rest.starts_with(form))
            }
            Rule::Mpeg => start.starts_with(b"ID3") || matches!(start, [0xff, second, ..] if *second >= 0xe0),
            Rule::Text => is_text(start),
        }
    }
}

/// How files of a type begin.
enum Rule {
    Anything,
    Starts(&'static [&'static [u8]]),
    Within(&'static [u8]),
    At(usize, &'static [u8]),
    RiffOf(&'static [u8]),
    Mpeg,
    Text,
}

const ZIP: &[&[u8]] = &[b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08"];
const OLE: &[u8] = &[0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1];

fn rule(declared: &str) -> Rule {
    match declared {
        "application/pdf" => Rule::Within(b"%PDF-"),
        "application/gzip" => Rule::Starts(&[b"\x1f\x8b"]),
        "application/zip"
        | "application/vnd.oasis.opendocument.spreadsheet"
        | "application/vnd.oasis.opendocument.text"
        | "application/vnd.openxmlformats-officedocument.presentationml.presentation"
        | "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
        | "application/vnd.openxmlformats-officedocument.wordprocessingml.document" => Rule::Starts(ZIP),
        "application/msword" => Rule::Starts(&[OLE, b"{\\rtf"]),
        "application/vnd.ms-powerpoint" => Rule::Starts(&[OLE]),
        "audio/mpeg" => Rule::Mpeg,
        "image/gif" => Rule::Starts(&[b"GIF87a", b"GIF89a"]),
        "image/jpeg" => Rule::Starts(&[b"\xff\xd8\xff"]),
        "image/png" => Rule::Starts(&[b"\x89PNG\r\n\x1a\n"]),
        "image/webp" => Rule::RiffOf(b"WEBP"),
        "video/mp4" => Rule::At(4, b"ftyp"),
        "text/plain" | "text/csv" | "application/json" => Rule::Text,
        // Bytes are bytes, what is called a sheet by other programs is often a page of theirs, and active content is served
        // as bytes whatever it is.
        _ => Rule::Anything,
    }
}

/// No NUL, unless it says of itself that it is UTF-16 or UTF-32; and none of the formats above.
fn is_text(start: &[u8]) -> bool {
    const OTHERS: &[&[u8]] = &[b"%PDF-", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\x1f\x8b", b"PK\x03\x04", OLE];
    let wide =
        start.starts_with(b"\xff\xfe") || start.starts_with(b"\xfe\xff") || start.starts_with(b"\x00\x00\xfe\xff");
    (wide || !start.contains(&0)) && !OTHERS.iter().any(|other| start.starts_with(other))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &[(&str, &[u8])] = &[
        ("application/pdf", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3"),
        ("application/pdf", b"\xef\xbb\xbf\r\n%PDF-1.4"),
        ("application/gzip", b"\x1f\x8b\x08\x00"),
        ("application/zip", b"PK\x03\x04\x14\x00"),
        ("application/zip", b"PK\x05\x06\x00\x00"),
        ("application/vnd.oasis.opendocument.text", b"PK\x03\x04\x14\x00"),
        ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", b"PK\x03\x04\x14\x00"),
        ("application/msword", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\x00"),
        ("application/msword", b"{\\rtf1\\ansi"),
        ("application/vnd.ms-powerpoint", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\x00"),
        ("audio/mpeg", b"ID3\x03"),
        ("audio/mpeg", b"\xff\xfb\x90"),
        ("image/gif", b"GIF89a\x01"),
        ("image/jpeg", b"\xff\xd8\xff\xe0\x00\x10JFIF"),
        ("image/png", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"),
        ("image/webp", b"RIFF\x24\x00\x00\x00WEBPVP8 "),
        ("video/mp4", b"\x00\x00\x00\x18ftypmp42"),
        ("text/plain", b"h"),
        ("text/plain", "Überblick, naïve — 𝄞".as_bytes()),
        ("text/plain", b"\xff\xfeh\x00i\x00"),
        ("text/csv", b"a,b\r\n1,\xe9\r\n"),
        ("application/json", b"{\"a\":1}"),
    ];

    fn of(text: &str) -> ContentType {
        ContentType::parse(text).unwrap()
    }

    #[test]
    fn a_file_that_begins_as_its_type_does_fits() {
        for (declared, start) in GOOD {
            assert!(of(declared).fits(start), "{declared} {start:?}");
        }
    }

    #[test]
    fn a_page_or_a_program_is_none_of_the_types_that_are_told_by_their_start() {
        let program = [b"MZ\x90\x00\x03\x00\x00\x00".as_slice(), &[0; 60], b"PE\x00\x00"].concat();
        let elf = b"\x7fELF\x02\x01\x01\x00\x00".to_vec();
        let page = b"<!doctype html><script>alert(1)</script>".to_vec();
        for (declared, _) in GOOD {
            assert!(of(declared).is_told_by_its_start());
            for other in [&program, &elf] {
                assert!(!of(declared).fits(other), "{declared} {other:?}");
            }
            let text = ["text/plain", "text/csv", "application/json"].contains(declared);
            assert_eq!(of(declared).fits(&page), text, "{declared}");
        }
    }

    #[test]
    fn no_type_takes_the_beginning_of_another() {
        let zips = |declared: &str| declared == "application/zip" || declared.starts_with("application/vnd.o");
        for (declared, start) in GOOD {
            for (other, _) in GOOD {
                let same = other == declared || (zips(other) && zips(declared));
                let ole = start.starts_with(OLE) && *other != "audio/mpeg" && other.contains("ms");
                let text = |of: &str| ["text/plain", "text/csv", "application/json"].contains(&of);
                // A text in a format that is text as well, a rich text, and a picture's mark that is a frame's too.
                let both = text(declared) && text(other) || start.starts_with(b"{\\rtf") && text(other);
                let frame = *other == "audio/mpeg" && start.starts_with(b"\xff\xfe");
                let song = text(other) && !start.contains(&0) && *declared == "audio/mpeg"
                    || text(other) && start.starts_with(b"GIF");
                let late = start.starts_with(b"\xef\xbb\xbf") && text(other);
                if !(same || ole || both || frame || song || late) {
                    assert!(!of(other).fits(start), "{other} takes {start:?} of {declared}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_decided_fits_always() {
        for declared in
            ["application/octet-stream", "text/html", "image/svg+xml", "application/vnd.ms-excel", "text/javascript"]
        {
            assert!(!of(declared).is_told_by_its_start(), "{declared}");
            assert!(of(declared).fits(b"MZ\x00") && of(declared).fits(b""));
        }
    }

    #[test]
    fn what_is_in_a_container_counts_as_well_as_the_container() {
        for other in
            [&b"RIFF\x24\x00\x00\x00WAVEfmt "[..], b"RIFX\x24\x00\x00\x00WEBPVP8 ", b"\x00\x00\x00\x18moovmp42"]
        {
            assert!(!of("image/webp").fits(other) && !of("video/mp4").fits(other), "{other:?}");
        }
    }

    #[test]
    fn what_is_cut_short_is_not_taken_for_whole() {
        for (declared, start) in
            GOOD.iter().filter(|(declared, _)| !declared.starts_with("text") && !declared.ends_with("json"))
        {
            assert!(!of(declared).fits(b"") && !of(declared).fits(&start[..1]), "{declared}");
        }
    }

    proptest! {
        #[test]
        fn text_without_a_nul_fits_whatever_its_letters(text in "[a-z \\PC]{1,200}") {
            prop_assume!(!text.contains('\0') && !text.starts_with("%PDF-") && !text.starts_with("PK\u{3}\u{4}"));
            prop_assert!(of("text/plain").fits(text.as_bytes()));
        }

        #[test]
        fn no_bytes_make_it_panic(start in proptest::collection::vec(any::<u8>(), 0..64)) {
            for (declared, _) in GOOD {
                let _ = of(declared).fits(&start);
            }
        }
    }
}
