"""A model asked: batches of prompts, greedy answers, likelihoods of given answers."""
