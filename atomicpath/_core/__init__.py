"""The values, codecs and small mechanisms that everything else is made of."""
