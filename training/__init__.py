"""How the embedded policy was made: tokenizer, network, training, measurement. Needs torch; ships nothing."""
