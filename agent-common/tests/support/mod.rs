//! A kernel of plain tables, and packets built the slow way.
#![allow(dead_code)]

pub(crate) mod build;
pub(crate) mod tables;
