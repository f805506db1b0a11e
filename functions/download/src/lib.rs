//! Serves file metadata and one-object URLs by id, to the owner only.
