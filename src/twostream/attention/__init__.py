"""What a network looked at: asking it, where its cells lie on the frame, weights as files and as pictures."""
