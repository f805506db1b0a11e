/// The largest object that one PUT may bring, in bytes. A browser cannot hash more than it can hold, so larger files
/// are a matter of multipart uploads.
pub const MAX_PUT: u64 = 64 * 1024 * 1024;

/// The size of an object in bytes: 1 to [`MAX_PUT`].
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
    /// Takes a size that one PUT may have.
    pub fn of_put(bytes: u64) -> Result<Size, SizeFault> {
        match bytes {
            0 => Err(SizeFault::Empty),
            1..=MAX_PUT => Ok(Size(bytes)),
            _ => Err(SizeFault::TooLarge),
        }
    }

    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// The size as SDK and database take it; always exact, because a size ends at [`MAX_PUT`].
    pub fn signed(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_end_at_one_byte_and_at_the_limit() {
        assert_eq!(Size::of_put(0), Err(SizeFault::Empty));
        assert_eq!(Size::of_put(1).unwrap().signed(), 1);
        assert_eq!(Size::of_put(MAX_PUT).unwrap().bytes(), MAX_PUT);
        assert_eq!(Size::of_put(MAX_PUT + 1), Err(SizeFault::TooLarge));
        assert_eq!(Size::of_put(u64::MAX), Err(SizeFault::TooLarge));
    }
}
