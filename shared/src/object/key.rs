use std::fmt;

use uuid::Uuid;

use crate::name::{Malformed, Tenant};

/// The id of a file: a UUIDv7 in its lower-case hyphenated form. Not a secret; ownership is the guard.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(Uuid);

impl FileId {
    /// Reads exactly the form that [`fmt::Display`] prints: no braces, no upper case, version 7, RFC 9562 variant.
    pub fn parse(text: &str) -> Result<FileId, Malformed> {
        let id = Uuid::try_parse(text).map_err(|_| Malformed("file id"))?;
        let mut canonical = Uuid::encode_buffer();
        if text != id.hyphenated().encode_lower(&mut canonical) {
            return Err(Malformed("file id"));
        }
        FileId::from_uuid(id)
    }

    /// Takes a UUID that must be version 7.
    pub fn from_uuid(id: Uuid) -> Result<FileId, Malformed> {
        match (id.get_version_num(), id.get_variant()) {
            (7, uuid::Variant::RFC4122) => Ok(FileId(id)),
            _ => Err(Malformed("file id")),
        }
    }

    /// The id as the database takes it.
    pub fn uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileId({self})")
    }
}

/// The key of an object, `t/{tenant}/{file id}`: chosen by the server, without any text of a user in it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ObjectKey {
    tenant: Tenant,
    file: FileId,
}

impl ObjectKey {
    /// The one key that the file has.
    pub fn new(tenant: Tenant, file: FileId) -> ObjectKey {
        ObjectKey { tenant, file }
    }

    /// Reads a key as it stands in the bucket, already decoded.
    pub fn parse(text: &str) -> Result<ObjectKey, Malformed> {
        let (tenant, file) =
            text.strip_prefix("t/").and_then(|rest| rest.split_once('/')).ok_or(Malformed("object key"))?;
        let tenant = Tenant::parse(tenant).map_err(|_| Malformed("object key"))?;
        let file = FileId::parse(file).map_err(|_| Malformed("object key"))?;
        Ok(ObjectKey { tenant, file })
    }

    /// The tenant whose prefix the key lies under.
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// The file that the object belongs to.
    pub fn file(&self) -> FileId {
        self.file
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t/{}/{}", self.tenant.as_str(), self.file)
    }
}

/// The version of an object, as S3 names it: 1 to 1,024 visible ASCII characters. `null`, which S3 says where a bucket
/// keeps no versions, is refused: without versions a checked object could be another one a moment later.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct VersionId(String);

impl VersionId {
    /// Reads a version id.
    pub fn parse(text: &str) -> Result<VersionId, Malformed> {
        let fits =
            (1..=1024).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) && text != "null";
        if fits { Ok(VersionId(text.to_owned())) } else { Err(Malformed("version id")) }
    }

    /// The id as S3 takes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// S3's name for an upload in parts: 1 to 1,024 visible ASCII characters. Whoever knows it can do nothing without a session,
/// but it is nobody's to name, so it prints nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct UploadId(String);

impl UploadId {
    /// Reads an upload id.
    pub fn parse(text: &str) -> Result<UploadId, Malformed> {
        let fits = (1..=1024).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        if fits { Ok(UploadId(text.to_owned())) } else { Err(Malformed("upload id")) }
    }

    /// The id as S3 takes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UploadId")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "t/acme/01920000-0000-7000-8000-0000000000f1";

    #[test]
    fn a_key_prints_as_it_was_read() {
        let key = ObjectKey::parse(KEY).unwrap();
        assert_eq!((key.to_string().as_str(), key.tenant().as_str()), (KEY, "acme"));
        let file = key.file();
        assert_eq!((file.to_string().as_str(), file.uuid().to_string().as_str()), (&KEY[7..], &KEY[7..]));
        assert_eq!(FileId::from_uuid(file.uuid()), Ok(file));
    }

    #[test]
    fn a_key_outside_the_grammar_is_refused() {
        for text in [
            "",
            "t/",
            "t/acme",
            "t/acme/",
            "t//01920000-0000-7000-8000-0000000000f1",
            "/t/acme/01920000-0000-7000-8000-0000000000f1",
            "x/acme/01920000-0000-7000-8000-0000000000f1",
            "t/Acme/01920000-0000-7000-8000-0000000000f1",
            "t/-acme/01920000-0000-7000-8000-0000000000f1",
            "t/a.c/01920000-0000-7000-8000-0000000000f1",
            "t/acme/../globex/01920000-0000-7000-8000-0000000000f1",
            "t/acme/01920000-0000-7000-8000-0000000000f1/",
            "t/acme/01920000-0000-7000-8000-0000000000f1 ",
            "t/acme/01920000-0000-7000-8000-0000000000F1",
            "t/acme/0192000000007000800000000000000f1",
            "t/acme/{01920000-0000-7000-8000-0000000000f1}",
            "t/acme/01920000-0000-4000-8000-0000000000f1",
            "t/acme/01920000-0000-7000-0000-0000000000f1",
            "trust/keys.json",
        ] {
            assert!(ObjectKey::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_version_of_an_unversioned_bucket_is_refused() {
        for text in ["", "null", "a b", "ü", "a\n", &"v".repeat(1025)] {
            assert!(VersionId::parse(text).is_err(), "{text}");
        }
        for text in ["3HL4kqtJlcpXroDTDmjVBH40Nrjfkd", &"v".repeat(1024), "nul", "null."] {
            assert_eq!(VersionId::parse(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn an_upload_id_is_visible_ascii_and_prints_nothing() {
        for text in ["", "a b", "ü", "a\n", &"v".repeat(1025)] {
            assert!(UploadId::parse(text).is_err(), "{text}");
        }
        assert!(UploadId::parse(&"v".repeat(1024)).is_ok());
        let id = UploadId::parse("canary-2f~").unwrap();
        assert_eq!((id.as_str(), format!("{id:?}").as_str()), ("canary-2f~", "UploadId"));
    }

    proptest! {
        #[test]
        fn every_key_of_the_grammar_survives_a_round_trip(tenant in "[a-z0-9][a-z0-9-]{0,47}", id in any::<u128>()) {
            let id = (id & !(0xf << 76) & !(0x3 << 62)) | (7 << 76) | (2 << 62);
            let key = ObjectKey::new(Tenant::parse(&tenant).unwrap(), FileId::from_uuid(Uuid::from_u128(id)).unwrap());
            prop_assert_eq!(ObjectKey::parse(&key.to_string()).unwrap(), key);
        }

        #[test]
        fn no_text_is_read_as_a_key_that_prints_otherwise(text in "\\PC{0,64}") {
            if let Ok(key) = ObjectKey::parse(&text) {
                prop_assert_eq!(key.to_string(), text);
            }
        }

        #[test]
        fn a_key_with_one_character_changed_is_refused_or_another_key(at in 0..KEY.len(), with in "[ -~]") {
            let mut text = KEY.to_owned();
            text.replace_range(at..=at, &with);
            if let Ok(key) = ObjectKey::parse(&text) {
                prop_assert_eq!(key == ObjectKey::parse(KEY).unwrap(), text == KEY);
            }
        }
    }
}
