//! The command line: whatever the words are, there is an answer, and what is understood can be said in
//! one form that means the same.

#![no_main]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use husk::cli::{self, Invocation, Reading, Said};
use husk::commands::usual::Given;
use husk_fuzz::assert_one_line;
use libfuzzer_sys::fuzz_target;

// Words end with a NUL, as in /proc/PID/cmdline: so no word has one inside.
fuzz_target!(|line: &[u8]| {
    let words = || {
        line.split(|byte| *byte == 0)
            .map(|word| OsString::from_vec(word.to_vec()))
    };
    let mut said = Said::default();
    match cli::parse(words(), &mut said, |_| Ok(())) {
        Err(error) => {
            assert_one_line(&error.to_string());
            assert!(!error.to_string().is_empty());
        }
        Ok(Invocation::Print(text)) => assert!(text.ends_with('\n')),
        Ok(Invocation::Run { global, .. }) => {
            assert!(global.root.is_absolute() && global.root.parent().is_some());
        }
    }
    // Types that the definition promises and the structure wants agree, and clap understands what is read
    // without it.
    let mut said_to_clap = Said::default();
    if let Ok(Reading::Words {
        command,
        definition,
        options,
        positionals,
    }) = cli::read(words(), &mut said_to_clap, |_| Ok(()))
    {
        let given = Given {
            options: &options,
            positionals: &positionals,
        };
        let is_usual = definition.is_none() && (command.read_usual)(&given).is_some();
        match cli::matches(command, definition, options, positionals) {
            Ok(mut matches) => {
                if let Err(error) = (command.understand)(&mut matches) {
                    panic!("{}: {error}", command.name);
                }
            }
            Err(error) => assert!(!is_usual, "{}: {error}", command.name),
        }
    }
    // The same words mean the same, and leave the same for the log.
    let mut again = Said::default();
    let _ = cli::parse(words(), &mut again, |_| Ok(()));
    assert_eq!(said, again);
});
