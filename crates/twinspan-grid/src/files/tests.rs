//! Files in parts, their names, and the list of what is in a thing.

use super::*;
use twinspan_core::random::Stream;

#[test]
fn a_file_has_a_part_even_when_it_has_no_bytes() {
    let bytes: Vec<u8> = (0..2_500).map(|n| (n % 251) as u8).collect();
    assert_eq!((parts(&[]), parts(&bytes), parts(&bytes[..2_000])), (1, 3, 2));
    let again: Vec<u8> = (0..3).flat_map(|number| part(&bytes, number).to_vec()).collect();
    assert_eq!(again, bytes);
    assert_eq!(part(&bytes, 3), []);
    assert_eq!(part(&[], 0), []);
}

#[test]
fn files_with_names_are_bounded_and_others_do_not_see_them() {
    let mut files = Files::default();
    let names: Vec<String> = (0..100).map(|number| files.keep(7, vec![number].into())).collect();
    assert_eq!(files.named.len(), NAMED_FILES_MAX);
    assert!(files.find(7, &names[0]).is_none(), "the oldest is forgotten");
    assert_eq!(files.find(7, &names[99]).as_deref(), Some([99].as_slice()));
    assert!(files.find(8, &names[99]).is_none());
    files.delete(7, &names[99]);
    assert!(files.find(7, &names[99]).is_none());
    files.forget(7);
    assert_eq!(files.named.len(), 0);
}

#[test]
fn the_ground_has_thirteen_bytes_a_point() {
    let ground = terrain();
    assert_eq!(ground.len(), 851_968);
    assert_eq!(ground[..13], [21, 128, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_thing_lists_what_is_in_it() {
    let things = Thing::all(&mut Stream::new(1, "things", 0), 0);
    let [bench, sign, _] = things.as_slice() else { panic!("three things") };
    assert_eq!(contents(bench), []);
    let list = String::from_utf8(contents(sign)).unwrap();
    let note = sign.note.unwrap();
    assert!(list.starts_with("\tinv_object\t0\n\t{\n\t\tobj_id\t"), "{list}");
    for line in [
        format!("\t\titem_id\t{}\n", note.item_id),
        format!("\t\tparent_id\t{}\n", sign.id),
        format!("\t\tasset_id\t{}\n", note.asset_id),
        "\t\tname\tRead me|\n".to_owned(),
    ] {
        assert!(list.contains(&line), "{line:?} in {list}");
    }
    assert_eq!(list.matches('{').count(), list.matches('}').count());
    assert!(list.ends_with("\t}\n\0"), "{list:?}");
}
