"""The arithmetic behind the models: exact where plain formulas cancel, lean and fast."""
