"""`captioner: server`: a server that speaks OpenAI's chat protocol writes the captions.

question.py    what is asked about a sample, and the digest by which its answer is found
reply.py       what an answer means
client.py      one request
traffic.py     how many requests may be in flight
answers.py     the answers that are there: each is settled when it first came
asking.py      asks for all that is missing
captioner.py   captions of a shard from the answers, and a ledger row per sample
tokens.py      what it costs, for `flame plan`
"""
