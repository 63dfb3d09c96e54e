package dev.edgebert

/** What is wrong, in a sentence that says what came, what is allowed and what to do: the one exception of this library. */
public class EdgebertException @JvmOverloads constructor(message: String, cause: Throwable? = null) :
    RuntimeException(message, cause)
