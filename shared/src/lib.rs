//! The pure core of Portcullis: decisions, formats and ports, without an SDK or a database driver.
