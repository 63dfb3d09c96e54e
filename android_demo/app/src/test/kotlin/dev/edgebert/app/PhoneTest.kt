package dev.edgebert.app

import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.annotation.Config
import kotlin.test.assertEquals
import kotlin.test.assertFalse
import kotlin.test.assertTrue

@RunWith(RobolectricTestRunner::class)
@Config(sdk = [34])
class PhoneTest {
    private val pixel8 = """
        processor	: 0
        BogoMIPS	: 49.15
        Features	: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm asimddp i8mm bf16
        CPU implementer	: 0x41
        CPU part	: 0xd46
    """.trimIndent()

    @Test
    fun `cores and what they can do are read`() {
        val phone = Phone(pixel8, List(4) { 1_704_000 } + List(4) { 2_367_000 } + 2_914_000, 9)
        assertEquals(5, phone.bigCores)
        assertEquals(listOf(1, 2, 4), phone.threadCounts)
        assertTrue(phone.hasDotProduct && phone.hasHalf && phone.hasI8mm)
        val old = Phone("Features\t: fp asimd evtstrm aes", List(8) { 2_000_000 }, 8)
        assertEquals(listOf(1, 2, 4, 8), old.threadCounts)
        assertFalse(old.hasDotProduct || old.hasHalf || old.hasI8mm)
        assertEquals(listOf(1, 2), Phone("", emptyList(), 2).threadCounts)
    }

    @Test
    fun `only what one can hold is a phone`() {
        val shiba = "google/shiba/shiba:14/UD1A.230803.041/10808477:user/release-keys"
        assertTrue(Phone.isReal("arm64-v8a", shiba, "Pixel 8", "shiba", "Google"))
        assertFalse(Phone().isReal)
        assertFalse(Phone.isReal("arm64-v8a", "robolectric", "robolectric", "robolectric", "unknown"))
        val emulator = "google/sdk_gphone64_arm64/emu64a:14/U/1:user/keys"
        assertFalse(Phone.isReal("arm64-v8a", emulator, "sdk_gphone64_arm64", "ranchu", "Google"))
        val generic = "generic_x86/sdk/generic:7.0/N/1:eng/test-keys"
        assertFalse(Phone.isReal("x86", generic, "Android SDK", "intel", "unknown"))
        assertFalse(Phone.isReal("riscv64", shiba, "Pixel 8", "shiba", "Google"))
        assertFalse(Phone.isReal("arm64-v8a", "", "Pixel 8", "shiba", "Google"))
    }

    @Test
    fun `quantiles lie between neighbours in proportion`() {
        val timing = Timing(32, 1, 9.0, (1..20).map { it.toDouble() }, emptyMap())
        assertEquals(10.5, timing.median, 1e-12)
        assertEquals(18.1, timing.p90, 1e-12)
        assertEquals(2.9, timing.quantile(0.1), 1e-12)
    }
}
