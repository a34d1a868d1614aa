"""Lightning's training epoch, with two things that it lacks: a place to stop at, and a short way through a step."""
