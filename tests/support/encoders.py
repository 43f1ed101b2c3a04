"""What the tests of the public class share."""

BOUND = 5e-7  # absolute, of a float32 vector of unit length

LONG = "abc " * 60  # 180 tokens of the random model, whose limit is 128
