"""The service's HTTP side: two Sanic applications that run in every worker process.

entry.py       a worker process from its first line
worker.py        both applications in one loop, until SIGTERM
first_keys.py      waits for its keys, for a moment
server.py          how they meet the network, and how they drain
fast.py              plain questions to /verify, without Sanic's full cycle
api.py             the public application
forward_auth.py      what /verify answers
question.py            what it is asked, read from Sanic or from bytes
original.py            which request a proxy asks about, and who may ask
identity.py            who a token speaks for, in header fields
internal_token.py      and in a JWT of our own
admin.py           the admin application
answers.py         every other error as JSON
refusals.py        a log line for a refused request
"""
