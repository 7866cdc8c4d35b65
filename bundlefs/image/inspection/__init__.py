"""What a disk image is, for whoever looks: facts, an estimate, and what EC2 will make of it.

Nothing here writes, keeps or locks anything, and nothing of what is looked at is trusted: each
look is bounded in time and memory. What cannot be told is said to be unknown, and why. Other
people's tools are asked where they are installed (`tools`); they get the file itself, or a copy
in memory of the few bytes that they need of an image in another form.
"""
