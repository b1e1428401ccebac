//! The record of a container: what is read can be written and read again as the same; what can't be
//! read is an error with a reason.

#![no_main]

use std::path::Path;

use husk::container::record::Record;
use husk_fuzz::{assert_one_line, mutate};
use libfuzzer_sys::{fuzz_mutator, fuzz_target};

fuzz_target!(|text: &[u8]| {
    match Record::parse(text, Path::new("record.json")) {
        Err(error) => {
            assert_one_line(&error.to_string());
            assert_eq!(error.code().map(|errno| errno as i32), Some(libc::EBADMSG));
        }
        Ok(record) => {
            let written = serde_json::to_vec(&record).unwrap();
            let again = Record::parse(&written, Path::new("record.json")).unwrap();
            assert_eq!(serde_json::to_vec(&again).unwrap(), written);
        }
    }
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate(data, size, max_size, seed)
});
