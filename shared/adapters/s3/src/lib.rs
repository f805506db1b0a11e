//! S3 behind the ports of shared.
