//! The same view, rendered for scraping.
