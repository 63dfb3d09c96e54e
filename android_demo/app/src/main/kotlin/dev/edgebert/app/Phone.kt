package dev.edgebert.app

import android.annotation.TargetApi
import android.os.Build
import org.json.JSONObject
import java.io.File
import java.io.IOException

/** What this phone tells of itself. */
internal class Phone(
    private val cpuInfo: String = read("/proc/cpuinfo"),
    private val clocks: List<Int> = clocks(),
    private val cores: Int = Runtime.getRuntime().availableProcessors(),
) {
    val name: String get() = listOf(Build.MANUFACTURER, Build.MODEL)
        .filterNot { it == Build.UNKNOWN || it == Build.MANUFACTURER && Build.MODEL.startsWith(it, ignoreCase = true) }
        .joinToString(" ").ifEmpty { Build.UNKNOWN }

    val coreCount: Int get() = cores

    /** Cores whose clock goes higher than the slowest ones' goes, as all are where they are alike. */
    val bigCores: Int get() = clocks.count { it > (clocks.minOrNull() ?: 0) }.takeIf { it > 0 } ?: cores

    /** 1, 2, 4 and so on, up to the number of big cores. */
    val threadCounts: List<Int> get() = generateSequence(1) { it * 2 }.takeWhile { it <= bigCores }.toList()

    /** The line of /proc/cpuinfo that names what the cores can do; null where it has none. */
    val features: String? get() = line("Features") ?: line("flags")

    /** Products of four bytes in one instruction; half precision; products of matrices of bytes. */
    val hasDotProduct: Boolean get() = has("asimddp")
    val hasHalf: Boolean get() = has("asimdhp")
    val hasI8mm: Boolean get() = has("i8mm")

    /** Whether this is a phone that one can hold; the same rule as Python's, which does not take our word for it. */
    val isReal: Boolean get() = isReal(
        Build.SUPPORTED_ABIS.firstOrNull().orEmpty(),
        Build.FINGERPRINT,
        Build.MODEL,
        Build.HARDWARE,
        Build.MANUFACTURER,
    )

    /** The `machine` of a row of `edgebert profile --json`. */
    fun toJson(): JSONObject = JSONObject()
        .put("machine", System.getProperty("os.arch"))
        .put("system", "Android")
        .put("cores", cores)
        .put("model", Build.MODEL)
        .put("manufacturer", Build.MANUFACTURER)
        .put("abi", Build.SUPPORTED_ABIS.firstOrNull().orEmpty())
        .put("fingerprint", Build.FINGERPRINT)
        .put("hardware", Build.HARDWARE)
        .put("android", Build.VERSION.RELEASE)
        .put("sdk", Build.VERSION.SDK_INT)
        .put("soc", if (Build.VERSION.SDK_INT >= 31) soc() else JSONObject.NULL)
        .put("cpu", line("Hardware") ?: line("model name") ?: JSONObject.NULL)
        .put("features", line("Features") ?: JSONObject.NULL)

    @TargetApi(31)
    private fun soc(): String = Build.SOC_MODEL

    private fun has(feature: String): Boolean = features.orEmpty().split(' ').contains(feature)

    private fun line(name: String): String? = cpuInfo.lineSequence()
        .firstOrNull { it.substringBefore(':').trim() == name }
        ?.substringAfter(':')?.trim()?.takeIf { it.isNotEmpty() }

    companion object {
        private val NOT_HELD = listOf(
            "robolectric", "sdk_gphone", "emulator", "goldfish", "ranchu", "cuttlefish", "vbox",
        )

        fun isReal(abi: String, fingerprint: String, model: String, hardware: String, manufacturer: String): Boolean {
            val told = listOf(fingerprint, model, hardware, manufacturer).map { it.lowercase() }
            return (abi.startsWith("arm") || abi == "x86" || abi == "x86_64") &&
                fingerprint.isNotEmpty() && model.isNotEmpty() &&
                told.none { one -> NOT_HELD.any { it in one } } &&
                told.take(2).none { "unknown" in it } &&
                told[0].split('/').none { it.startsWith("generic") }
        }

        private fun read(path: String): String = try {
            File(path).readText()
        } catch (_: IOException) {
            ""
        }

        private fun clocks(): List<Int> = File("/sys/devices/system/cpu").listFiles().orEmpty()
            .filter { it.name.matches(Regex("cpu[0-9]+")) }
            .mapNotNull { read("$it/cpufreq/cpuinfo_max_freq").trim().toIntOrNull() }
    }
}
