package dev.edgebert.tokenizer

import java.io.File
import java.lang.management.ManagementFactory

/**
 * Times this tokenizer; run by benchmarks/phone_tokenizer.py.
 *
 * Arguments: a tokenizer.json, and a file with a text a line. Prints on one line: seconds from nothing to an open tokenizer in
 * a JVM that has just started, bytes of heap that it keeps, and microseconds of a core a text, the best of several rounds.
 */
fun main(arguments: Array<String>) {
    val before = heap()
    val start = System.nanoTime()
    val tokenizer = Tokenizer.read(File(arguments[0]).inputStream())
    val opened = System.nanoTime() - start
    val kept = heap() - before
    val texts = File(arguments[1]).readLines()
    val clock = ManagementFactory.getThreadMXBean()
    var tokens = 0L
    val best = (1..ROUNDS).minOf {
        val began = clock.currentThreadCpuTime
        for (text in texts) tokens += tokenizer.encode(text).size
        clock.currentThreadCpuTime - began
    }
    check(tokens > 0)
    println("${opened / 1e9} $kept ${best / 1e3 / texts.size}")
}

private fun heap(): Long {
    repeat(3) { System.gc() }
    return Runtime.getRuntime().run { totalMemory() - freeMemory() }
}

private const val ROUNDS = 12
