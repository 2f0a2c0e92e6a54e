//! A kernel of plain tables, and packets built the slow way.
#![allow(dead_code)]

pub mod build;
pub mod tables;
