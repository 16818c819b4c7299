"""The heart: likelihood, VAE with its guards, latent operator, energy distance."""
