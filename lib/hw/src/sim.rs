//! A fake machine with write history, for host tests.
