//! Tests of the built binary on generated bundles.
