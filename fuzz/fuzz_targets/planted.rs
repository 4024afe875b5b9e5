//! The negative control: panics at one input of seven bytes, which is found only by whoever is led there by coverage. Not a
//! parser of ours, and not among those that `fuzz/check` counts: there it has to fail.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut state = 0;
    for byte in data {
        // Open => (Open | Found): each right byte is a branch of its own.
        state = match (state, byte) {
            (0, b'p') => 1,
            (1, b'l') => 2,
            (2, b'a') => 3,
            (3, b'n') => 4,
            (4, b't') => 5,
            (5, b'e') => 6,
            (6, b'd') => panic!("the planted defect was found"),
            _ => return,
        };
    }
});
