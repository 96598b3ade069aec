"""What a front end shows, as plain values."""
