/// The largest object that one PUT or one form may bring, in bytes. A browser cannot hash more than it can hold, so larger
/// files are a matter of multipart uploads.
pub const MAX_PUT: u64 = 64 * 1024 * 1024;

/// The largest object of all, in bytes (5 TiB).
pub const MAX_FILE: u64 = 5 * 1024 * 1024 * 1024 * 1024;

const MIB: u64 = 1024 * 1024;

/// The size of an object in bytes: 1 to [`MAX_FILE`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Size(u64);

/// Why a size is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SizeFault {
    /// Nothing is no file.
    Empty,
    /// More than the mode allows.
    TooLarge,
}

impl Size {
    /// Takes a size that one PUT may have, 1 to [`MAX_PUT`].
    pub fn of_put(bytes: u64) -> Result<Size, SizeFault> {
        Size::up_to(MAX_PUT, bytes)
    }

    /// Takes a size that an object of parts may have, 1 to [`MAX_FILE`].
    pub fn of_file(bytes: u64) -> Result<Size, SizeFault> {
        Size::up_to(MAX_FILE, bytes)
    }

    fn up_to(limit: u64, bytes: u64) -> Result<Size, SizeFault> {
        match bytes {
            0 => Err(SizeFault::Empty),
            bytes if bytes <= limit => Ok(Size(bytes)),
            _ => Err(SizeFault::TooLarge),
        }
    }

    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// The size as SDK and database take it; always exact, because a size ends at [`MAX_FILE`].
    pub fn signed(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }
}

/// How a large file is cut: parts of one size, of which the last may be smaller (Amazon S3 multipart upload limits).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parts {
    size: Size,
    each: u64,
}

impl Parts {
    /// The most parts that an object may have.
    pub const MOST: u64 = 10_000;
    /// The smallest part that is not the last, in bytes.
    pub const SMALLEST: u64 = 5 * MIB;
    /// The largest part, in bytes.
    pub const LARGEST: u64 = 5 * 1024 * MIB;
    /// What nobody asked otherwise gets, in bytes.
    const USUAL: u64 = 8 * MIB;

    /// Cuts `size` into parts of `each`, or of a size of whole mebibytes that fits where nothing is asked for.
    pub fn of(size: Size, each: Option<u64>) -> Result<Parts, SizeFault> {
        let least = size.bytes().div_ceil(Self::MOST).next_multiple_of(MIB);
        let each = each.unwrap_or(least.max(Self::USUAL));
        if each < Self::SMALLEST {
            return Err(SizeFault::Empty);
        }
        if each > Self::LARGEST || size.bytes().div_ceil(each) > Self::MOST {
            return Err(SizeFault::TooLarge);
        }
        Ok(Parts { size, each })
    }

    /// The size of the whole.
    pub fn size(self) -> Size {
        self.size
    }

    /// The size of every part but the last, in bytes.
    pub fn each(self) -> u64 {
        self.each
    }

    /// How many there are.
    pub fn count(self) -> u64 {
        self.size.bytes().div_ceil(self.each)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_limits_are_those_of_the_documentation() {
        assert_eq!((MAX_PUT, MAX_FILE), (67_108_864, 5_497_558_138_880));
        assert_eq!((Parts::SMALLEST, Parts::LARGEST, Parts::USUAL), (5_242_880, 5_368_709_120, 8_388_608));
    }

    #[test]
    fn sizes_end_at_one_byte_and_at_the_limit() {
        assert_eq!(Size::of_put(0), Err(SizeFault::Empty));
        assert_eq!((Size::of_put(1).unwrap().signed(), Size::of_put(7).unwrap().signed()), (1, 7));
        assert_eq!(Size::of_put(MAX_PUT).unwrap().bytes(), MAX_PUT);
        assert_eq!(Size::of_put(MAX_PUT + 1), Err(SizeFault::TooLarge));
        assert_eq!(Size::of_put(u64::MAX), Err(SizeFault::TooLarge));
        assert_eq!(Size::of_file(0), Err(SizeFault::Empty));
        assert_eq!(Size::of_file(MAX_FILE).unwrap().bytes(), MAX_FILE);
        assert_eq!(Size::of_file(MAX_FILE + 1), Err(SizeFault::TooLarge));
    }

    #[test]
    fn a_file_is_cut_as_asked_or_as_fits() {
        let size = |bytes| Size::of_file(bytes).unwrap();
        let cases = [
            (1, None, Ok((8 * MIB, 1))),
            (8 * MIB, None, Ok((8 * MIB, 1))),
            (8 * MIB + 1, None, Ok((8 * MIB, 2))),
            (10_000 * 8 * MIB, None, Ok((8 * MIB, 10_000))),
            (10_000 * 8 * MIB + 1, None, Ok((9 * MIB, 8_889))),
            (MAX_FILE, None, Ok((525 * MIB, 9_987))),
            (50_000 * MIB, Some(5 * MIB), Ok((5 * MIB, 10_000))),
            (50_000 * MIB + 1, Some(5 * MIB), Err(SizeFault::TooLarge)),
            (MAX_FILE, Some(Parts::LARGEST), Ok((Parts::LARGEST, 1024))),
            (1, Some(Parts::LARGEST + 1), Err(SizeFault::TooLarge)),
            (1, Some(Parts::SMALLEST - 1), Err(SizeFault::Empty)),
            (1, Some(0), Err(SizeFault::Empty)),
            (7 * MIB, Some(5 * MIB + 1), Ok((5 * MIB + 1, 2))),
        ];
        for (bytes, asked, want) in cases {
            let cut = Parts::of(size(bytes), asked).map(|parts| (parts.each(), parts.count()));
            assert_eq!(cut, want, "{bytes} in parts of {asked:?}");
        }
    }

    proptest! {
        #[test]
        fn parts_make_up_the_whole(bytes in 1..=MAX_FILE, asked in proptest::option::of(Parts::SMALLEST..=Parts::LARGEST)) {
            if let Ok(parts) = Parts::of(Size::of_file(bytes).unwrap(), asked) {
                prop_assert!((1..=Parts::MOST).contains(&parts.count()));
                prop_assert!((Parts::SMALLEST..=Parts::LARGEST).contains(&parts.each()));
                let before_last = (parts.count() - 1) * parts.each();
                prop_assert!(before_last < bytes && bytes <= before_last + parts.each());
            } else {
                prop_assert!(asked.is_some_and(|each| bytes.div_ceil(each) > Parts::MOST));
            }
        }
    }
}
