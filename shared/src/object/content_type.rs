use crate::name::Malformed;

/// What may be uploaded, and what a browser is told it gets. Active content may be stored but is served as bytes, because
/// S3 cannot send `nosniff` and an object host must never run a script.
const ALLOWED: &[(&str, &str)] = &[
    ("application/gzip", "application/gzip"),
    ("application/javascript", BYTES),
    ("application/json", "application/json"),
    ("application/msword", "application/msword"),
    (BYTES, BYTES),
    ("application/pdf", "application/pdf"),
    ("application/vnd.ms-excel", "application/vnd.ms-excel"),
    ("application/vnd.ms-powerpoint", "application/vnd.ms-powerpoint"),
    ("application/vnd.oasis.opendocument.spreadsheet", "application/vnd.oasis.opendocument.spreadsheet"),
    ("application/vnd.oasis.opendocument.text", "application/vnd.oasis.opendocument.text"),
    (
        "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ),
    (
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ),
    (
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ),
    ("application/xhtml+xml", BYTES),
    ("application/xml", BYTES),
    ("application/zip", "application/zip"),
    ("audio/mpeg", "audio/mpeg"),
    ("image/gif", "image/gif"),
    ("image/jpeg", "image/jpeg"),
    ("image/png", "image/png"),
    ("image/svg+xml", BYTES),
    ("image/webp", "image/webp"),
    ("text/csv", "text/csv; charset=utf-8"),
    ("text/html", BYTES),
    ("text/javascript", BYTES),
    ("text/plain", "text/plain; charset=utf-8"),
    ("text/xml", BYTES),
    ("video/mp4", "video/mp4"),
];
const BYTES: &str = "application/octet-stream";

/// A media type of the list that files may have: lower case, without parameters, exactly as it is signed and stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ContentType {
    declared: &'static str,
    served: &'static str,
}

impl ContentType {
    /// Reads a declared type; whatever is not on the list, byte for byte, is refused.
    pub fn parse(text: &str) -> Result<ContentType, Malformed> {
        let found = ALLOWED.iter().find(|(declared, _)| *declared == text);
        found.map(|(declared, served)| ContentType { declared, served }).ok_or(Malformed("content type"))
    }

    /// The type the uploader declared and must send.
    pub fn declared(self) -> &'static str {
        self.declared
    }

    /// The type a download is served with.
    pub fn served(self) -> &'static str {
        self.served
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_types_of_the_list_are_accepted() {
        for text in [
            "",
            "text",
            "text/plain; charset=utf-8",
            "TEXT/PLAIN",
            "image/png ",
            "image/bmp",
            "text/*",
            "*/*",
            "application/x-msdownload",
        ] {
            assert!(ContentType::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn active_content_is_served_as_bytes() {
        for text in [
            "text/html",
            "image/svg+xml",
            "text/xml",
            "application/xml",
            "application/xhtml+xml",
            "text/javascript",
            "application/javascript",
        ] {
            let parsed = ContentType::parse(text).unwrap();
            assert_eq!((parsed.declared(), parsed.served()), (text, "application/octet-stream"));
        }
    }

    #[test]
    fn inert_content_keeps_its_type() {
        assert_eq!(ContentType::parse("application/pdf").unwrap().served(), "application/pdf");
        assert_eq!(ContentType::parse("text/plain").unwrap().served(), "text/plain; charset=utf-8");
    }

    #[test]
    fn no_served_type_can_run_a_script() {
        for (declared, served) in ALLOWED {
            for active in ["html", "svg", "xml;", "+xml", "/xml", "script"] {
                assert!(!served.contains(active), "{declared} is served as {served}");
            }
        }
    }
}
