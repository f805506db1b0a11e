//! Creates pending files and signs one exact PUT for each.
