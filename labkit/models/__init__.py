"""The system on the bench: likelihood, VAE, latent operator, energy distance, data, training."""
