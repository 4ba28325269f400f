"""What a model answers: replies it writes, and the probability it gives to each label of a task."""

from interp.evaluate.decoding import Decoding, Reply
from interp.evaluate.run import Answer, Batches, evaluate, plan_batches

__all__ = ["Answer", "Batches", "Decoding", "Reply", "evaluate", "plan_batches"]
