package dev.edgebert

import java.io.File
import java.io.IOException

/** A processor's cores. */
internal object Cores {
    private const val MOST = 4

    /**
     * How many are big, 1 to 4: those that are not of the slowest kind. Work that is spread over little ones too waits
     * for them. Where the system does not tell, half of all.
     */
    fun big(folder: File = File("/sys/devices/system/cpu")): Int {
        val speeds = folder.listFiles { file -> Regex("cpu[0-9]+").matches(file.name) }.orEmpty().mapNotNull(::speed)
        val faster = speeds.count { it > speeds.min() }
        val half = (Runtime.getRuntime().availableProcessors() + 1) / 2
        return (if (speeds.isEmpty()) half else if (faster == 0) speeds.size else faster).coerceIn(1, MOST)
    }

    /** Of a core at most, in kHz. */
    private fun speed(core: File): Long? =
        try {
            File(core, "cpufreq/cpuinfo_max_freq").readText().trim().toLongOrNull()
        } catch (_: IOException) {
            null
        }
}
