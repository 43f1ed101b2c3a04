"""Commands that measure: each claim of the README names the one that shows it. Run them from the checkout's root."""
